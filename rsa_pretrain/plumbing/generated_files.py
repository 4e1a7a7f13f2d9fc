"""Refuse to overwrite files that this toolkit did not generate."""

import json
from collections.abc import Collection
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError


def check_generated(path: Path, opening: str) -> None:
    """Refuse, before any work, to write over a file that somebody else wrote.

    Args:
        path: The file to be written.
        opening: Beginning of every generated file; its first line identifies it.

    Raises:
        UserError: If the path is a folder, or a file that begins differently.
    """
    _check_no_folder(path)
    if path.is_file() and not is_generated(path.read_bytes(), opening):
        raise _foreign(path)


def is_generated(content: bytes, opening: str) -> bool:
    """Return whether a file's content begins with the first line of an opening."""
    return content.startswith(opening.partition("\n")[0].encode())


def check_marked(path: Path, mark: str) -> None:
    """Refuse, before any work, to write over a binary file that somebody else wrote.

    Args:
        path: The file to be written.
        mark: Text that every generated file contains.

    Raises:
        UserError: If the path is a folder, or a file without it.
    """
    _check_no_folder(path)
    if path.is_file() and mark.encode() not in path.read_bytes():
        raise _foreign(path)


def check_json(path: Path, keys: Collection[str], inner: str | None = None) -> None:
    """Refuse, before any work, to write over a JSON file that somebody else wrote.

    Args:
        path: The file to be written.
        keys: Keys at the top of every generated file, of which one may lack some.
        inner: Key of the section under each of them; None if these are no sections.

    Raises:
        UserError: If the path is a folder, or a file with other keys, none, or no JSON.
    """
    _check_no_folder(path)
    if not path.is_file():
        return
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _foreign(path) from None
    if not isinstance(tree, dict) or not tree or not tree.keys() <= set(keys):
        raise _foreign(path)
    sections = tree.values()
    if inner is not None and not all(isinstance(own, dict) and inner in own for own in sections):
        raise _foreign(path)


def _check_no_folder(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a file in it")


def _foreign(path: Path) -> UserError:
    return UserError(f"'{path}' exists and was not written by this command; name another OUT")
