"""Read a plain pickle of numpy arrays or tensors without running any code that it names.

detectron2's ``.pkl`` weights are such files.
"""

import pickle
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.pickle_reader import PickleReader
from rsa_pretrain.weights.files.stand_in import Name
from rsa_pretrain.weights.files.torch_builders import TORCH_BUILDERS
from rsa_pretrain.weights.files.torch_legacy import load_storage

_BUILDERS = {**TORCH_BUILDERS, "torch.storage._load_from_bytes": load_storage}


def load_pickle(path: Path) -> tuple[Any, list[Name]]:
    """Return the content of a pickle, and the names it refers to.

    Raises:
        UserError: If it is damaged.
    """
    reader = PickleReader(_BUILDERS)
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as stream:
            return reader.read(stream), list(reader.names)
    except pickle.UnpicklingError as error:
        raise UserError(f"'{path}' is not a pickle of arrays and plain values: {error}") from None
