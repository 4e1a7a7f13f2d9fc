"""Read files that the user names, of which none is large."""

from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import open_regular

_MIB = 2**20
# Of a list or table; one line for each image of ImageNet-1K takes 40.
_LARGEST_MIB = 256


def read_limited(path: Path, largest_mib: int = _LARGEST_MIB, what: str = "") -> bytes:
    """Return a file's bytes.

    Args:
        path: The file.
        largest_mib: Size up to which it is read.
        what: Noun for it in errors.

    Raises:
        UserError: If it cannot be read, is no regular file, or is larger.
    """
    try:
        with open_regular(path) as file:
            content = file.read(largest_mib * _MIB + 1)
    except OSError as error:
        raise UserError(f"cannot read {_named(path, what)}: {error.strerror}") from None
    if len(content) > largest_mib * _MIB:
        raise UserError(f"cannot read {_named(path, what)}: it is larger than {largest_mib} MiB")
    return content


def read_text(path: Path, largest_mib: int = _LARGEST_MIB, what: str = "") -> str:
    """Return a UTF-8 file's text, without a byte order mark.

    Args:
        path: The file.
        largest_mib: Size up to which it is read.
        what: Noun for it in errors.

    Raises:
        UserError: If it cannot be read, is no regular file, is larger, or is not UTF-8.
    """
    content = read_limited(path, largest_mib, what)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"cannot read {_named(path, what)}: it is not UTF-8 text") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _named(path: Path, what: str) -> str:
    return f"{what} '{path}'" if what else f"'{path}'"
