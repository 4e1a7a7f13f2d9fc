"""Read other tools' JSON files in any Unicode encoding."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.plumbing.memory import RAISE_LIMIT, require_memory
from rsa_pretrain.plumbing.regular_files import open_regular

_PLAIN = "utf-8"
_MARKED = "utf-8-sig"
_CHUNK_BYTES = 2**20
_FLOAT_BYTES = 24


def read_json(path: Path, content: str) -> tuple[Any, tuple[str, ...]]:
    """Read a JSON file in UTF-8, with a byte order mark or without, UTF-16 or UTF-32.

    Args:
        path: The file.
        content: Plural noun for its content, for errors.

    Returns:
        Its content, and one line per oddity of the encoding.

    Raises:
        UserError: If it cannot be read, held in memory, decoded or parsed.
    """
    try:
        with open_regular(path) as file:
            encoding = json.detect_encoding(file.read(4))
            require_memory(_least_bytes(path), f"{content} '{path}'", RAISE_LIMIT)
            file.seek(0)
            text = file.read().decode(encoding)
        tree = parse_json(text)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {content} '{path}': {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{content} '{path}' are not {encoding.upper()} (byte {error.start:,}); "
            "save the file as UTF-8"
        ) from None
    except MemoryError:
        raise UserError(f"{content} '{path}' do not fit into memory") from None
    except ValueError:
        raise UserError(f"{content} '{path}' are not JSON") from None
    if encoding == _PLAIN:
        return tree, ()
    if encoding == _MARKED:
        return tree, ("1 byte order mark at the start of the file, ignored",)
    return tree, (f"1 file in {encoding.upper()}, not in UTF-8, read as such",)


def _least_bytes(path: Path) -> int:
    """Return the memory of a file's text, at least, with that of a number for each dot."""
    with path.open("rb") as file:
        num_dots = sum(chunk.count(b".") for chunk in iter(partial(file.read, _CHUNK_BYTES), b""))
    return path.stat().st_size + _FLOAT_BYTES * num_dots
