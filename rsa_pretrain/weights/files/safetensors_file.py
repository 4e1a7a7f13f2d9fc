"""Read a safetensors file whose header is limited and checked before it is trusted."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import why_out_of_memory

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 32 * 2**20


def header_length(start: bytes, size: int) -> int | None:
    """Return the length that the first bytes state, or None if this is not a safetensors file."""
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    fits = 2 <= length <= min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES)
    return length if fits and start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" else None


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a safetensors file's tensors and the text entries of its header.

    The library checks that each tensor's bytes fit its shape and are in the file, none twice.

    Raises:
        UserError: If the header or the data is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    # Element types that torch lacks surface as KeyError or AttributeError, sizes as RuntimeError.
    except (SafetensorError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        if why_out_of_memory(error) is not None:
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"'{path}' is not a complete safetensors file ({reason})") from None


def read_header_entry(path: Path, size: int, key: str) -> str | None:
    """Return one text entry of the header, reading only the header; None if there is none.

    Args:
        path: A regular file of ``size`` bytes, of any kind.
        size: Its size in bytes.
        key: Name of the entry.
    """
    with path.open("rb") as file:
        length = header_length(file.read(_LENGTH_BYTES + 1), size)
        if length is None:
            return None
        file.seek(_LENGTH_BYTES)
        text = file.read(length)
    try:
        entry = json.loads(text).get("__metadata__", {}).get(key)
    except (ValueError, AttributeError, RecursionError):
        return None
    return entry if isinstance(entry, str) else None
