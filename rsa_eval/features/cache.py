"""Cache of extracted features: one memory-mapped file per backbone, images and settings.

A file is safetensors, with ``labels``, int64 (N,), and ``features``, (N, D). Its header stores
the features' identity under ``rsa_features`` and, under ``sha256``, the checksum of everything
after the header. The file appears under its name only once complete.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsa_eval.features.forward import NonFiniteFeatures
from rsa_eval.features.identity import FeatureIdentity
from rsa_eval.features.partial import RowLayout, partial_file, remove_abandoned
from rsa_eval.features.share import own_share
from rsa_pretrain.plumbing.config.files import config_hash
from rsa_pretrain.plumbing.distributed import (
    failing_together,
    is_main,
    min_over_ranks,
    wait_for_all,
)
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import check_regular, is_there

_SUFFIX = ".safetensors"
_ALIGNMENT = 64
_NO_SHA256 = "0" * 64
_TYPE_NAMES = {torch.float32: "F32", torch.float16: "F16"}
# From batches to the first row of each, and its features, (n, D).
ExtractBatches = Callable[[list[range]], Generator[tuple[int, Tensor], None, None]]
_log = logging.getLogger(__name__)


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

    def ensure(self, batch_size: int, device: torch.device, extract: ExtractBatches) -> None:
        """Extract the features unless they exist; the file appears once it is complete.

        All processes share the work. If it is interrupted, a call with the same batch size and
        device resumes it.

        Args:
            batch_size: Images per batch.
            device: Computes the features.
            extract: Extracts those of some batches.

        Raises:
            UserError: If ``extract`` does in any process, or as ``is_usable``.
            Stopped: If a signal requested it.
        """
        if is_main():
            remove_abandoned(self.folder, _SUFFIX)
        seen = self._inode()
        if _main_finds(self.is_usable):
            return
        head = self._blank_header + self.labels.numpy().tobytes()
        layout = RowLayout(head, len(self.labels), self.width, self.dtype)
        with partial_file(self.path, layout, batch_size, device) as part:
            # Another command may have written the file since.
            if _main_finds(lambda: self._inode() != seen and self.is_usable()):
                if is_main():
                    part.discard()
                return
            own = own_share().of(part.missing())
            try:
                with failing_together():
                    part.fill(extract(own))
            except UserError as error:
                # In all processes. Unlike a full disk, these features would fail again.
                in_vain = min_over_ranks(int(not isinstance(error, NonFiniteFeatures))) == 0
                if in_vain and is_main():
                    part.discard()
                raise
            wait_for_all()
            if is_main():
                # On a network file system only opening shows what other machines have written.
                with part.content_path.open("rb", buffering=0) as content:
                    sha256 = _sha256_from(content, len(self._blank_header))
                part.complete(self._header(sha256))
            wait_for_all()

    def _inode(self) -> int | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.path.stat().st_ino
        return None

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


def _main_finds(holds: Callable[[], bool]) -> bool:
    """Return the main process's answer in every process."""
    return bool(min_over_ranks(int(holds() if is_main() else True)))


def _sha256_from(file: FileIO, offset: int) -> str:
    file.seek(offset)
    return hashlib.file_digest(file, "sha256").hexdigest()
