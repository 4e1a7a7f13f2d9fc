"""Cache of extracted features: one memory-mapped file per backbone, images and settings.

A file is safetensors, with ``labels``, int64 (N,), and ``features``, (N, D). Its header stores
the features' identity under ``rsa_features`` and, under ``sha256``, the checksum of everything
after the header. The file appears under its name only once complete.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsa_pretrain.plumbing.atomic_files import TEMPORARY_PREFIX, atomic_file
from rsa_pretrain.plumbing.config.files import Section, config_hash
from rsa_pretrain.plumbing.distributed import is_main, text_of_main, wait_for_all
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import check_regular, is_there

CACHE_FORMAT_VERSION = 2
"""Version of file and image decoding: 1 clipped deep grey levels and ignored EXIF orientation."""
_SUFFIX = ".safetensors"
_ALIGNMENT = 64
_NO_SHA256 = "0" * 64
_YOUNG_SECONDS = 60
_TYPE_NAMES = {torch.float32: "F32", torch.float16: "F16"}
_log = logging.getLogger(__name__)


class FeatureIdentity(Section):
    """Everything that determines features, up to rounding by device and batch size."""

    format_version: int
    weights: str
    """SHA-256 of the backbone's tensors, for a user's function also of its code."""
    images: str
    """Fingerprint of the images, in order, with their labels."""
    transform: str
    """Description of the image transform."""
    layers: tuple[str, ...]
    """Stages of a ResNet; name and token settings of another network."""
    precision: str
    feature_dtype: str
    library_versions: dict[str, str]
    """Versions of the libraries that decode, transform and compute."""


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class CacheEntry:
    """Location of a feature set in a cache, whether or not it exists yet.

    All processes of an evaluation use it alike and must see the same folder.
    """

    folder: Path
    name: str
    """Prefix of the file's name."""
    identity: FeatureIdentity
    labels: Tensor
    """int64 (N,)."""
    width: int
    """D."""
    dtype: torch.dtype
    """float32 or float16."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"{self.name}-{config_hash(self.identity)[:24]}{_SUFFIX}"

    def is_usable(self) -> bool:
        """Return whether the features exist, complete and unchanged; log a damaged file.

        Raises:
            UserError: If the folder is none.
        """
        for place in (self.folder, *self.folder.parents):
            if place.exists() and not place.is_dir():
                raise UserError(f"cache_dir '{self.folder}' needs a folder, '{place}' is a file")
        if not is_there(self.path):
            return False
        fault = self._fault()
        if fault is not None:
            _log.warning("ignoring '%s' (%s); extracting the features again", self.path, fault)
        return fault is None

    def map(self) -> Tensor:
        """Map the features into memory, (N, D), copy-on-write: the file never changes."""
        dtype = np.float32 if self.dtype == torch.float32 else np.float16
        offset = len(self._blank_header) + 8 * len(self.labels)
        shape = (len(self.labels), self.width)
        rows: Tensor = torch.from_numpy(
            np.memmap(self.path, dtype, mode="c", offset=offset, shape=shape)
        )
        return rows

    @contextmanager
    def writing(self) -> Iterator["FeatureFile"]:
        """Write the file from all processes together; it appears if the block succeeds."""
        if is_main():
            _remove_leftovers(self.folder)
        with atomic_file(self.path) if is_main() else nullcontext() as created:
            if created is not None:
                self._lay_out(created)
            # Unbuffered: written data goes to the kernel, not to this process's memory.
            with Path(text_of_main(str(created))).open("r+b", buffering=0) as file:
                if is_main():
                    fcntl.flock(file, fcntl.LOCK_EX)
                start = len(self._blank_header) + 8 * len(self.labels)
                yield FeatureFile(file, start, self.width, self.dtype)
                # On a network file system other machines see only flushed data.
                os.fsync(file.fileno())
                wait_for_all()
                if is_main():
                    header = self._header(_sha256_from(file, len(self._blank_header)))
                    file.seek(0)
                    file.write(header)
        wait_for_all()

    def _lay_out(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(self._blank_header)
            file.write(self.labels.numpy().data)
            file.truncate(self._num_bytes)

    def _fault(self) -> str | None:
        """Describe what is wrong with the file; None if nothing is."""
        try:
            found_bytes = check_regular(self.path).st_size
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if found_bytes != self._num_bytes:
            return f"it has {found_bytes} bytes, expected {self._num_bytes}"
        with self.path.open("rb", buffering=0) as file:
            found = file.read(len(self._blank_header))
            place = self._blank_header.index(_NO_SHA256.encode())
            sha256 = found[place : place + len(_NO_SHA256)].decode("ascii", errors="replace")
            if found != self._header(sha256):
                return "its header describes other features"
            if sha256 != _sha256_from(file, len(found)):
                return "its content differs from its checksum"
        return None

    @cached_property
    def _blank_header(self) -> bytes:
        return self._header(_NO_SHA256)

    @property
    def _num_bytes(self) -> int:
        row_bytes = 8 + self.width * self.dtype.itemsize
        return len(self._blank_header) + len(self.labels) * row_bytes

    def _header(self, sha256: str) -> bytes:
        num_rows = len(self.labels)
        end_of_labels = 8 * num_rows
        end = end_of_labels + num_rows * self.width * self.dtype.itemsize
        tree = {
            "__metadata__": {"rsa_features": self.identity.model_dump_json(), "sha256": sha256},
            "labels": {"dtype": "I64", "shape": [num_rows], "data_offsets": [0, end_of_labels]},
            "features": {
                "dtype": _TYPE_NAMES[self.dtype],
                "shape": [num_rows, self.width],
                "data_offsets": [end_of_labels, end],
            },
        }
        text = json.dumps(tree).encode()
        length = math.ceil((8 + len(text)) / _ALIGNMENT) * _ALIGNMENT - 8
        return length.to_bytes(8, "little") + text.ljust(length)


@dataclass(frozen=True)
class FeatureFile:
    """A file whose rows several processes are writing concurrently."""

    file: FileIO
    start: int
    """Byte offset of the first row."""
    width: int
    dtype: torch.dtype

    def write(self, first_row: int, rows: Tensor) -> None:
        """Write rows, (n, D), starting at ``first_row``."""
        self.file.seek(self.start + first_row * self.width * self.dtype.itemsize)
        data = rows.to(self.dtype).contiguous().numpy().data.cast("B")
        while data:
            data = data[self.file.write(data) :]


def _sha256_from(file: FileIO, offset: int) -> str:
    file.seek(offset)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_leftovers(folder: Path) -> None:
    """Delete partial files of killed processes.

    A running process locks its file. One written to within the last minute may not be locked yet,
    or no longer, and be renamed at any moment.
    """
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*{_SUFFIX}"):
        with suppress(FileNotFoundError, BlockingIOError), leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(file.fileno()).st_mtime > _YOUNG_SECONDS:
                leftover.unlink()
