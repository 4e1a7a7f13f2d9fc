"""Read a trunk's input and strides from detectron2's config; refuse any but torchvision's."""

from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.config.layers import parse_yaml
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_files import read_text
from rsa_pretrain.weights.foreign.layout import Pixels

# detectron2's defaults of the keys that decide what a ResNet computes.
_DEFAULTS: dict[str, Any] = {
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.NUM_GROUPS": 1,
}
_TORCHVISION_VALUES = {
    "INPUT.FORMAT": "RGB",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.NUM_GROUPS": 1,
}
_DIGITS = 9


def pixels_of_config(path: Path) -> Pixels:
    """Read a detectron2 config, resolved as detectron2 writes it into ``OUTPUT_DIR``.

    Returns:
        Mean and std of RGB pixels in [0, 1].

    Raises:
        UserError: If it is not such a config, or its network is not torchvision's.
    """
    tree = read_config(path)
    values = {key: _value(tree, key) for key in _DEFAULTS}
    for key, wanted in _TORCHVISION_VALUES.items():
        if values[key] != wanted:
            raise UserError(
                f"'{path}' has {key} {values[key]}; torchvision's ResNet, as in this toolkit's "
                f"checkpoints, has {wanted}: the same weights would compute something else"
            )
    mean, std = (
        tuple(round(float(value) / 255, _DIGITS) for value in values[key])
        for key in ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
    )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(f"'{path}' has a PIXEL_MEAN or PIXEL_STD that is not of three colours")
    return Pixels((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def read_config(path: Path) -> dict[str, Any]:
    """Return a config as a nested dictionary.

    Raises:
        UserError: If it is not a detectron2 config, or only the difference from another.
    """
    tree = parse_yaml(read_text(path, what="config"), str(path))
    if not isinstance(tree, dict) or "MODEL" not in tree:
        raise UserError(f"'{path}' is not a detectron2 config: it has no MODEL")
    if "_BASE_" in tree:
        raise UserError(
            f"'{path}' is only a difference from another config (_BASE_); give the whole one that "
            "detectron2 wrote into its OUTPUT_DIR"
        )
    return tree


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return _DEFAULTS[key] if tree is None else tree
