"""Restore the names that tensors had before a wrapper class was put around a module.

DataParallel and DistributedDataParallel add ``module.``, ``torch.compile`` adds ``_orig_mod.``,
FSDP and activation checkpointing their own, in any order and anywhere in a name:
``module.layer1._checkpoint_wrapped_module.0.conv1.weight`` is ``layer1.0.conv1.weight``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.files.tree import SEPARATOR

WRAPPERS = (
    "module",  # nn.DataParallel, DistributedDataParallel, averaged models
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_fpw_module",  # FSDP's first name for it
    "_checkpoint_wrapped_module",
    "_forward_module",  # Lightning Fabric
)


@dataclass(frozen=True, kw_only=True)
class Unwrapped(FileContent):
    """A file whose tensors are named without wrappers."""

    in_file: Mapping[str, str]
    """Path without wrappers → path in the file."""


def unwrapped(content: FileContent) -> Unwrapped:
    """Remove the wrappers from all names; unwrapped names stay unchanged.

    Raises:
        UserError: If two tensors then have the same name.
    """
    if isinstance(content, Unwrapped):
        return content
    tensors: dict[str, Tensor] = {}
    in_file: dict[str, str] = {}
    for path, tensor in content.tensors.items():
        bare = without_wrappers(path)
        if bare in in_file:
            raise UserError(
                f"'{content.path}' has '{in_file[bare]}' and '{path}', which differ only by "
                f"wrappers ({', '.join(wrappers_in([in_file[bare], path]))}); it is not clear "
                "which one counts"
            )
        tensors[bare] = tensor
        in_file[bare] = path
    return Unwrapped(**(vars(content) | {"tensors": tensors}), in_file=in_file)


def without_wrappers(path: str) -> str:
    """Return a path whose dotted name has no wrapper before its last part."""
    folder, slash, name = path.rpartition(SEPARATOR)
    *modules, leaf = name.split(".")
    return folder + slash + ".".join([part for part in modules if part not in WRAPPERS] + [leaf])


def wrappers_in(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the wrappers found in dotted names, each once."""
    parts = {part for path in paths for part in path.rpartition(SEPARATOR)[2].split(".")[:-1]}
    return tuple(wrapper for wrapper in WRAPPERS if wrapper in parts)
