"""Check that a path is a regular file of plausible size, and stays the same while it is read."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError

# A ResNet-101 with momentum network, queue and optimizer state is far smaller.
MAX_BYTES = 4 * 2**30

_INDEX_OF_PARTS = ".metadata"
_PARTS = ".distcp"
ABSENT = "does not exist; expected a run folder, a checkpoint folder or a file"
"""End of the message about a missing checkpoint or detector."""


def check_regular_file(path: Path) -> int:
    """Return the size in bytes of a regular file; opens nothing, so a pipe cannot block.

    Raises:
        UserError: If it is absent, a folder, a loop of links, a pipe or device, empty or larger
            than ``MAX_BYTES``.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"checkpoint '{path}' {ABSENT}") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be opened: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        check_not_distributed(path)
        raise UserError(
            f"'{path}' is a folder; expected one checkpoint file "
            "(of a Hugging Face folder, its model.safetensors)"
        )
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"'{path}' is a pipe or a device; expected a regular file")
    if status.st_size == 0:
        raise UserError(f"'{path}' is empty; expected a checkpoint")
    if status.st_size > MAX_BYTES:
        raise UserError(
            f"'{path}' has {status.st_size} bytes; expected at most {MAX_BYTES} for a ResNet"
        )
    check_not_distributed(path)
    return status.st_size


def check_not_distributed(path: Path) -> None:
    """Refuse a folder of torch's distributed checkpoints and the parts in it.

    Its index is a pickle that names classes, and its parts contain tensors without names.

    Raises:
        UserError: If it is one; says how to join its parts.
    """
    folder = path.parent if path.suffix == _PARTS or path.name == _INDEX_OF_PARTS else path
    if path.suffix == _PARTS or (folder / _INDEX_OF_PARTS).is_file():
        raise UserError(
            f"'{folder}' is a checkpoint of torch.distributed in parts; expected one file. Join "
            "the parts with python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
            f"'{folder}' checkpoint.pth, and take that"
        )


@contextmanager
def unchanged(file: Path) -> Iterator[None]:
    """Refuse a file that is replaced or deleted while the block reads it.

    Raises:
        UserError: Says so.
    """
    before = _identity(file)
    try:
        yield
    except FileNotFoundError:
        if _identity(file) == before:  # of another file, or of one that may not be read
            raise
    if before is None or _identity(file) != before:
        raise UserError(
            f"'{file}' was replaced or deleted while it was read, as by a training that keeps few "
            "checkpoints; rerun the command"
        )


def _identity(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
