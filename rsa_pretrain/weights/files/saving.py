"""Save torch and safetensors files; a full or failing disk is an OSError, as in Python's writes."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")


class _NotingFile:
    """Note why a write failed; torch's zip writer raises another error in its place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save_torch(content: Any, path: Path) -> None:
    """Write a file of ``torch.save``.

    Raises:
        OSError: If the system cannot write it.
    """
    with path.open("wb") as file:
        noting = _NotingFile(file)
        try:
            torch.save(content, cast(IO[bytes], noting))
        except RuntimeError:
            if noting.error is not None:
                raise noting.error from None
            raise


def save_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write tensors and metadata as safetensors.

    Raises:
        OSError: If the system cannot write them.
    """
    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:
        found = _ERROR_NUMBER.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from None
