"""Expand a leading ``~`` in any file name: an argument, a setting, an override, a ``base:``.

Shells expand it only at the start of a word, so ``--out=~/x`` and ``output_dir=~/x`` arrive
unexpanded.
"""

import os
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError

ADDRESSES = ZOO, HUB = ("zoo:", "hf://")
"""Beginnings of the addresses of published checkpoints."""


def expand_user(text: str) -> str:
    """Replace a leading ``~`` or ``~NAME`` by the home folder.

    Raises:
        UserError: If there is no such home folder.
    """
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        start = text.partition("/")[0]
        raise UserError(
            f"there is no home folder '{start}'; a file of that name can be written './{start}'"
        )
    return expanded


def user_path(path: str | Path) -> Path:
    """Return a path with its leading ``~`` expanded.

    Raises:
        UserError: As ``expand_user``.
    """
    return Path(expand_user(str(path)))


def is_address(place: str | Path) -> bool:
    """Return whether a checkpoint is named by where it is published: ``zoo:…`` or ``hf://…``."""
    return isinstance(place, str) and place.startswith(ADDRESSES)


def real_path(path: Path) -> Path:
    """Return the absolute path behind all links; of a loop of links, its own."""
    return Path(os.path.realpath(path))


def as_text(path: str | Path) -> str:
    """Return a path for a text file, its bytes that are not UTF-8 as question marks."""
    return str(path).encode(errors="replace").decode()


def refuse_input(out: Path, *inputs: Path) -> None:
    """Refuse to write over a file that is read.

    Raises:
        UserError: If the output is one of the inputs, also by another name.
    """
    for path in inputs:
        if real_path(out) == real_path(path):
            raise UserError(f"'{out}' is the input file; write to another")
