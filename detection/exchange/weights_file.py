"""Write weights files that detectron2 reads, with the toolkit's metadata beside the tensors.

detectron2 opens ``.pkl`` with ``pickle.load`` (a file written by ``torch.save`` fails there) and
everything else with ``torch.load``, which accepts only tensors and plain values. A ``.pkl`` with
both ``model`` and ``__author__`` is loaded without renaming anything. Protocol 4 is the newest
whose arrays need no numpy function younger than 1.26.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rsa_pretrain.weights.files.saving import save_torch
from rsa_pretrain.weights.foreign.layouts.detectron2 import TOOLKIT
from rsa_pretrain.weights.metadata import METADATA_KEY

SUFFIXES = (".pkl", ".pth")
_PROTOCOL = 4


def write_weights(path: Path, model: Mapping[str, Tensor], extra: Mapping[str, Any]) -> None:
    """Write a detectron2 weights file.

    Args:
        path: File to write; ``.pkl`` becomes a plain pickle of numpy arrays, ``.pth`` torch's.
        model: Tensors on the CPU by full name.
        extra: Strings, numbers, and lists and dicts of these.
    """
    content: dict[str, Any] = {"__author__": TOOLKIT, METADATA_KEY: dict(extra)}
    if path.suffix == ".pth":
        save_torch({"model": dict(model), **content}, path)
        return
    arrays = {name: tensor.contiguous().numpy() for name, tensor in model.items()}
    with path.open("wb") as file:
        pickle.dump({"model": arrays, **content}, file, _PROTOCOL)
