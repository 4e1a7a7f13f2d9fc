"""Read text files that the user names."""

from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without a byte order mark.

    Raises:
        UserError: If it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read '{path}': it is not UTF-8 text") from None
