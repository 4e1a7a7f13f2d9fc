"""Our checkpoint → detectron2 weights, proved before the file takes its name.

The proof has three parts: names and shapes are exactly detectron2's; the written file, read back
and renamed to torchvision's names, equals the checkpoint bitwise; and, where detectron2 is
installed, its own network with these weights computes torchvision's features.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from detection.detectron2_config import weights_tree
from detection.detectron2_file import Arrays, read_pickle, write_pickle
from detection.detectron2_trunk import enumerated_shapes, quoted_r50_shapes
from detection.key_map import to_detectron2, to_torchvision
from rsa_pretrain.atomic_files import atomic_file, write_text
from rsa_pretrain.checkpoint import BackboneMetadata, LoadedBackbone
from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.load import load_weights

# FrozenBN has no such tensor and BN starts its own count; the file's metadata keeps the values.
DROPPED_LEAF = "num_batches_tracked"


@dataclass(frozen=True)
class Conversion:
    """What a conversion did and what its proof found."""

    weights: Path
    config: Path
    config_tree: dict[str, Any]
    num_used: int
    dropped: list[str]
    shapes_source: str
    feature_differences: dict[str, float] | None
    """Largest difference per stage between the two libraries; None without detectron2."""


def to_detectron2_weights(tensors: Mapping[str, Tensor]) -> tuple[Arrays, dict[str, int]]:
    """Rename a torchvision trunk, each tensor used once or on the drop list.

    Args:
        tensors: State of a ResNet without classifier, float32.

    Returns:
        Arrays by detectron2's full names, and the dropped batch counts by torchvision's names.

    Raises:
        ValueError: If a name is not a trunk tensor's.
    """
    arrays: Arrays = {}
    dropped: dict[str, int] = {}
    for name, tensor in tensors.items():
        full_name = to_detectron2(name)
        if full_name.endswith(f".{DROPPED_LEAF}"):
            dropped[name] = int(tensor)
        else:
            arrays[full_name] = tensor.detach().cpu().contiguous().numpy()
    return arrays, dropped


def to_torchvision_tensors(arrays: Arrays, dropped: Mapping[str, int]) -> dict[str, Tensor]:
    """Undo ``to_detectron2_weights``, bitwise.

    Raises:
        ValueError: If a name is not a trunk tensor's.
    """
    tensors = {to_torchvision(name): torch.from_numpy(array) for name, array in arrays.items()}
    return tensors | {name: torch.tensor(count) for name, count in dropped.items()}


def convert(checkpoint: Path, out: Path) -> Conversion:
    """Write ``out`` and, beside it, the YAML keys that belong to its weights.

    Args:
        checkpoint: A checkpoint of this toolkit or of another project (``load_weights``).
        out: Weights file to write; must end in ``.pkl``.

    Returns:
        Counts and the proof's findings.

    Raises:
        UserError: If the checkpoint is refused, has another stem than detectron2's, ``out`` is
            not a ``.pkl``, or detectron2 is there but broken.
        RuntimeError: If a part of the proof fails; nothing is written then.
    """
    if out.suffix != ".pkl":
        raise UserError(f"'{out}' must end in .pkl: detectron2 chooses its reader by that")
    loaded = load_weights(checkpoint)
    if loaded.metadata.stem != "standard":
        raise UserError(
            f"'{loaded.path}' has the '{loaded.metadata.stem}' stem; detectron2's ResNet has only "
            "the standard 7x7 stem, so pretrain with backbone.stem=standard"
        )
    source = loaded.backbone.state_dict()
    arrays, dropped = to_detectron2_weights(source)
    shapes_source = _prove_shapes(arrays, loaded.metadata.arch)
    extra = {
        "metadata": loaded.metadata.model_dump_json(),
        "source_sha256": loaded.sha256,
        DROPPED_LEAF: dropped,
    }
    with atomic_file(out) as temporary:
        write_pickle(temporary, arrays, extra)
        _prove_file(temporary, source)
        feature_differences = _prove_features(temporary, loaded)
    tree = paired_config(loaded.metadata, out)
    config = out.with_suffix(".yaml")
    write_text(config, _CONFIG_HEADER + yaml.safe_dump(tree, sort_keys=False))
    return Conversion(
        out, config, tree, len(arrays), sorted(dropped), shapes_source, feature_differences
    )


def paired_config(metadata: BackboneMetadata, weights: Path) -> dict[str, Any]:
    """Return the detectron2 keys without which the weights compute something else."""
    tree = weights_tree(metadata.arch, metadata.mean, metadata.std, norm="BN")
    tree["MODEL"]["WEIGHTS"] = str(weights)
    return tree


_CONFIG_HEADER = """\
# detectron2 keys that belong to these weights. NORM may also be SyncBN (several processes) or
# FrozenBN; colour order, pixel statistics and stride placement may not change.
"""


def _prove_shapes(arrays: Arrays, arch: str) -> str:
    if arch == "resnet50":
        expected, source = quoted_r50_shapes(), "quoted from detectron2's ResNet-50"
    else:
        expected, source = enumerated_shapes(arch), f"listed from {arch}'s architecture"
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        differing = sorted(dict(found.items() ^ expected.items()))
        raise RuntimeError(f"converted names or shapes are not those {source}: {differing}")
    return source


def _prove_file(path: Path, source: Mapping[str, Tensor]) -> None:
    arrays, extra = read_pickle(path)
    restored = to_torchvision_tensors(arrays, extra[DROPPED_LEAF])
    unequal = [
        name for name in source if name not in restored or not _same(source[name], restored[name])
    ]
    if unequal or restored.keys() != source.keys():
        raise RuntimeError(f"the written file does not give back the checkpoint: {unequal}")


def _same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


def _prove_features(path: Path, loaded: LoadedBackbone) -> dict[str, float] | None:
    if importlib.util.find_spec("detectron2") is None:
        return None
    try:
        from detection.engines.detectron2.features import (
            MAX_FEATURE_DIFFERENCE,
            feature_differences,
        )
    except ImportError as error:
        raise UserError(
            f"detectron2 is installed but cannot be imported ({error}); repair or remove it"
        ) from None

    differences = feature_differences(path, paired_config(loaded.metadata, path), loaded.backbone)
    if max(differences.values()) > MAX_FEATURE_DIFFERENCE:
        raise RuntimeError(f"detectron2's features differ from torchvision's: {differences}")
    return differences
