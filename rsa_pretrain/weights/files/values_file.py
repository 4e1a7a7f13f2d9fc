"""Read what this toolkit wrote with ``torch.save``, after verifying the archive's checksums.

torch does not verify them: a flipped bit of a tensor would be read as another number.
"""

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from rsa_pretrain.plumbing.memory import why_out_of_memory
from rsa_pretrain.plumbing.regular_files import open_regular

# Whatever zipfile and torch raise at damage.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError),
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, AssertionError, MemoryError),
)


def load_values(path: Path) -> Any:
    """Return the tensors and plain values of a file, on the CPU.

    Raises:
        OSError: If it cannot be opened or is no regular file.
        ValueError: If it is damaged or contains anything else.
        MemoryError: Or torch's RuntimeError, if it does not fit into memory.
    """
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"the checksum of {broken} is another")
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except _DAMAGE as error:
            if why_out_of_memory(error) is not None:
                raise  # the file may be sound
            raise ValueError(" ".join(str(error).split())) from None
