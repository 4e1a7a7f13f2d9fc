"""Load the weights of another library's network from a file, strictly and without unpickling."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.files.tree import SEPARATOR
from rsa_pretrain.weights.foreign.unwrap import unwrapped
from rsa_pretrain.weights.tensor_check import check_tensors

# Stands for hidden patches in pretraining; no features come from it.
_UNUSED = frozenset({"mask_token"})


def load_file(
    module: nn.Module,
    path: Path,
    name: str,
    classifier: tuple[str, ...],
    renamed: Callable[[str], str] = str,
) -> str:
    """Load a file's tensors into a network without classifier.

    Wrappers (``module.``, ``_orig_mod.``) are removed from names, other float types converted, and
    a classifier's tensors dropped; everything else must fit one to one.

    Args:
        module: The network.
        path: safetensors, or a file of ``torch.save``.
        name: The network's name, for errors.
        classifier: Names of the modules that were removed.
        renamed: Maps a name in the file to the module's.

    Returns:
        SHA-256 of the file.

    Raises:
        UserError: If the file is unsafe or damaged, or its tensors are not the network's.
    """
    content = unwrapped(read_checkpoint_file(path))
    groups: dict[str, dict[str, Tensor]] = {}
    for place, tensor in content.tensors.items():
        folder, _, own_name = place.rpartition(SEPARATOR)
        groups.setdefault(folder, {})[renamed(own_name)] = tensor
    wanted = module.state_dict().keys()
    complete = [folder for folder, tensors in groups.items() if wanted <= tensors.keys()]
    if len(complete) > 1:
        raise UserError(
            f"'{path}' contains {name} {len(complete)} times, under "
            f"{', '.join(repr(folder) for folder in complete)}; save the one to evaluate alone"
        )
    # Without a complete one, the nearest says what is missing.
    nearest = max(groups, key=lambda folder: len(wanted & groups[folder].keys()))
    load_tensors(
        module, groups[complete[0] if complete else nearest], f"'{path}' as {name}", classifier
    )
    return content.sha256


def load_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], what: str, classifier: tuple[str, ...]
) -> None:
    """Load tensors into a network without classifier, as ``load_file`` does.

    Args:
        module: The network.
        tensors: Tensors by the network's names.
        what: Names the source in the error.
        classifier: Names of the modules that were removed.

    Raises:
        UserError: If they are not the network's.
    """
    expected = module.state_dict()
    kept = {
        name: _converted(tensor, expected.get(name))
        for name, tensor in tensors.items()
        if name in expected or not (name in _UNUSED or _is_inside(name, classifier))
    }
    check_tensors(kept, expected, what)
    module.load_state_dict(kept, strict=True)


def _is_inside(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _converted(tensor: Tensor, expected: Tensor | None) -> Tensor:
    """Convert between float types; all else is left to be refused."""
    if expected is None or not (tensor.is_floating_point() and expected.is_floating_point()):
        return tensor
    return tensor.to(expected.dtype)
