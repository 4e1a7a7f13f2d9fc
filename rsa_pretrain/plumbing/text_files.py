"""Read files that the user names, of which none is large."""

from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError

_MIB = 2**20
# Of a list or table; one line for each image of ImageNet-1K takes 40.
_LARGEST_MIB = 256


def read_limited(path: Path, largest_mib: int = _LARGEST_MIB) -> bytes:
    """Return a file's bytes.

    Args:
        path: The file.
        largest_mib: Size up to which it is read.

    Raises:
        UserError: If it cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest_mib * _MIB + 1)
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from None
    if len(content) > largest_mib * _MIB:
        raise UserError(f"cannot read '{path}': it is larger than {largest_mib} MiB")
    return content


def read_text(path: Path, largest_mib: int = _LARGEST_MIB) -> str:
    """Return a UTF-8 file's text, without a byte order mark.

    Raises:
        UserError: If it cannot be read, is larger, or is not UTF-8.
    """
    content = read_limited(path, largest_mib)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"cannot read '{path}': it is not UTF-8 text") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
