"""Check output paths before a command starts its work."""

import os
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError


def check_output(path: Path, suffix: str, option: str = "--out") -> None:
    """Refuse, before any work is done, a path that cannot be written.

    Args:
        path: The file.
        suffix: Required ending of its name.
        option: The option that named it, for errors.

    Raises:
        UserError: If it has another suffix, is a folder, or cannot be created.
    """
    if path.suffix != suffix:
        raise UserError(f"{option} '{path}' should end in {suffix}")
    if path.is_dir():
        raise UserError(f"{option} '{path}' is a folder; name a file in it")
    _check_parents(path, option)


def check_output_folder(path: Path, option: str = "--out") -> None:
    """Refuse, before any work is done, a folder that cannot be written to.

    Args:
        path: The folder.
        option: The option that named it, for errors.

    Raises:
        UserError: If it is a file or not writable.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} '{path}' is a file; name a folder")
    _check_parents(path / "file", option)


def _check_parents(path: Path, option: str) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write {option} '{path}': '{nearest}' is not a writable folder")
