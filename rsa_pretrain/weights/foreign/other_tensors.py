"""Recognise what a checkpoint contains beside its backbone, by path and shape.

Every layout names its own heads; the rules here apply to all of them.
"""

from collections.abc import Mapping

from torch import Tensor

from rsa_pretrain.weights.files.tree import SEPARATOR
from rsa_pretrain.weights.foreign.layout import matching
from rsa_pretrain.weights.foreign.names import NORM_LEAVES, NameTable

_OPTIMIZER = r"(\w*optim(izer)?s?(_state|_states|_state_dict)?|opt(_state_dict)?)"
_SETTINGS = r"(\w*hyper_parameters|hparams|config|cfg|args)"
_TRAINING = (
    r"(\w*scaler|\w*schedulers?(_state_dict)?|amp|apex_amp|callbacks|loops|MixedPrecision\w*|"
    r"message_hub|meta|trainer|\w*rng_states?\w*|best_\w+|epoch|\w*step|iteration|iter)"
)
_PLACES = {
    rf"{_OPTIMIZER}(/|$)": "optimizer state",
    rf"({_SETTINGS}|{_TRAINING})(/|$)": "training state",
}
_HEADS = (
    r"((last_|output_)?(fc|linear|classifier|head|logits)s?\d*|projector|projection(_head|_mlp)?|"
    r"predictor|prediction(_head|_mlp)?|prototypes|mlp(_head)?)\."
)


def training_state(path: str, prefix: str) -> str | None:
    """Return the kind of a training script's path; None if it may belong to a network.

    A tensor outside the network's container belongs to no network if its name has no module
    (``exp_avg``, ``0``) and is not a module's parameter or buffer (``weight``).

    Args:
        path: Path of the tensor.
        prefix: Prefix of the network.
    """
    for place, what in _PLACES.items():
        if matching(place, path) and not prefix.startswith(path.partition(SEPARATOR)[0] + "/"):
            return what
    folder, _, name = path.rpartition(SEPARATOR)
    elsewhere = folder != prefix.rpartition(SEPARATOR)[0]
    if elsewhere and "." not in name and name not in NORM_LEAVES:
        return "training state"
    return None


def is_setting(prefix: str) -> bool:
    """Return whether a prefix is among the settings of a run."""
    return matching(rf"{_SETTINGS}/", prefix)


def heads(beside: Mapping[str, Tensor], prefix: str, names: NameTable, width: int) -> list[str]:
    """Return the paths of heads under a network's prefix, which follow its features.

    A head is not part of the stem or a stage, and is either named as a head or a single linear
    layer that takes the features.

    Args:
        beside: Tensors that are not the network's, by path.
        prefix: Prefix of the network.
        names: Names of its tensors.
        width: Length of its features.
    """
    modules: dict[str, dict[str, str]] = {}
    for path in beside:
        module, dot, name = path.removeprefix(prefix).partition(".")
        if path.startswith(prefix) and dot and module not in names.modules:
            modules.setdefault(module, {})[name] = path
    return [
        path
        for module, paths in modules.items()
        if matching(_HEADS, f"{module}.")
        or _is_linear({name: tuple(beside[path].shape) for name, path in paths.items()}, width)
        for path in paths.values()
    ]


def _is_linear(shapes: dict[str, tuple[int, ...]], width: int) -> bool:
    weight = shapes.pop("weight", ())
    return len(weight) == 2 and weight[1] == width and shapes in ({}, {"bias": weight[:1]})
