"""The weights file detectron2 reads: plain pickle, numpy arrays under full names.

detectron2 opens ``.pkl`` with ``pickle.load`` (a file written by ``torch.save`` fails there) and
takes one with both ``model`` and ``__author__`` as its own, without renaming anything. Protocol 4
is the newest whose arrays need no numpy function younger than 1.26.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.array_pickle import load_array_pickle

AUTHOR = "rsa-toolkit"
EXTRA_KEY = "rsa_toolkit"
_PROTOCOL = 4

Arrays = dict[str, NDArray[np.float32]]


def write_pickle(path: Path, model: Arrays, extra: Mapping[str, Any]) -> None:
    """Write a detectron2 weights file.

    Args:
        path: File to write.
        model: float32 arrays by full name.
        extra: What the toolkit remembers of them: strings, integers and dicts of these.
    """
    content = {"model": model, "__author__": AUTHOR, EXTRA_KEY: dict(extra)}
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=_PROTOCOL)


def read_pickle(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a file of ``write_pickle``; admits arrays and plain values, and runs no other code.

    Raises:
        UserError: If the file is damaged, holds other objects, or is not of this layout.
    """
    try:
        content = load_array_pickle(path.read_bytes())
    except pickle.UnpicklingError as error:
        raise UserError(f"'{path}' is not a pickle of arrays and plain values: {error}") from None
    if not isinstance(content, dict) or set(content) != {"model", "__author__", EXTRA_KEY}:
        raise UserError(f"'{path}' is not a detectron2 weights file of this toolkit")
    return content["model"], content[EXTRA_KEY]
