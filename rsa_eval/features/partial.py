"""Write a file of features batch by batch, so that a rerun resumes the work of a killed process.

Until a file is complete, ``NAME.part`` has its content, and ``NAME.progress`` records the batches
that are there: a line with the batch size and the device, by which features may round differently,
then the SHA-256 of each batch's bytes, or zeros. A batch is recorded once it has been flushed to
disk, every ten seconds. What does not match its record is extracted again, so neither file need be
whole; of another batch size or device that is everything.

The processes of one command hold a lock on ``NAME.progress``; another command waits for it. Partial
files that nobody has locked, and that have not grown for a week or whose file is complete, are
removed when features are next looked for in their folder.
"""

import hashlib
import logging
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from rsa_eval.features.share import ALONE
from rsa_pretrain.plumbing.atomic_files import make_folder, move_into_place
from rsa_pretrain.plumbing.device import describe_hardware
from rsa_pretrain.plumbing.distributed import is_main, text_of_main
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.locked_file import lock_alone, locked_file, open_unbuffered
from rsa_pretrain.plumbing.stop_signal import Stopped, StopSignal

_PROGRESS_SUFFIX = ".progress"
_DIGEST_BYTES = 32
_FLUSH_SECONDS = 10
_LEAST_WORK_PER_FLUSH = 50
_ABANDONED_SECONDS = 7 * 24 * 3600
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowLayout:
    """A file of ``num_rows`` rows of ``width`` numbers of a type, which follow its ``head``."""

    head: bytes
    num_rows: int
    width: int
    dtype: torch.dtype

    def place(self, row: int) -> int:
        """Return the byte offset of a row."""
        return len(self.head) + row * self.width * self.dtype.itemsize


@contextmanager
def partial_file(
    path: Path, layout: RowLayout, batch_size: int, device: torch.device
) -> Iterator["PartialFile"]:
    """Open the partial file of a path, in all processes of this command and in no other command.

    On an exception it is kept for a rerun, unless there is nothing in it.

    Args:
        path: Name of the complete file; its folder is created.
        layout: Its content.
        batch_size: Rows per batch.
        device: Computes the rows.
    """
    make_folder(path.parent)
    with (
        locked_file(_progress_of(path)) as progress,
        open_unbuffered(_content_of(path)) as content,
    ):
        origin = f"batches of {batch_size} on {describe_hardware(device)}"
        part = PartialFile(path, layout, batch_size, origin, progress, content)
        try:
            yield part
        except BaseException:
            if is_main() and part.is_empty():
                part.discard()
            raise


class PartialFile:
    """A file of rows that the processes of a command write together.

    Args:
        path: Name of the complete file.
        layout: Its content.
        batch_size: Rows per batch.
        origin: Describes what rounding depends on.
        progress: Record of the batches that are on disk.
        content: The file so far.
    """

    def __init__(
        self,
        path: Path,
        layout: RowLayout,
        batch_size: int,
        origin: str,
        progress: FileIO,
        content: FileIO,
    ) -> None:
        self.path, self.layout, self.batch_size, self.origin = path, layout, batch_size, origin
        self._progress, self._content = progress, content
        self._first_line = f"{origin}\n".encode()
        self._batches = ALONE.batches(layout.num_rows, batch_size)
        self._unrecorded: dict[int, bytes] = {}
        self._next_flush = time.monotonic() + _FLUSH_SECONDS

    @property
    def content_path(self) -> Path:
        """Where the content is so far."""
        return _content_of(self.path)

    def is_empty(self) -> bool:
        """Return whether no batch is recorded."""
        return not any(map(any, self._read_digests()))

    def missing(self) -> list[range]:
        """Return the batches that are not there; all processes call it, once."""
        found = "".join("01"[is_there] for is_there in self._resume()) if is_main() else ""
        flags = text_of_main(found)
        return [batch for batch, flag in zip(self._batches, flags, strict=True) if flag == "0"]

    def fill(self, found: Generator[tuple[int, Tensor], None, None]) -> None:
        """Write batches until there are no more.

        Args:
            found: Yields a batch's first row, and the batch, (n, D).

        Raises:
            Stopped: If a signal requested it.
            UserError: If the disk is full or cannot be written to.
        """
        with StopSignal() as stop, closing(found):
            try:
                for first_row, rows in found:
                    self._write(first_row, rows)
                    if stop.received is not None:
                        break
            finally:
                self._flush()
        if stop.received is not None:
            count = self._describe_count([any(digest) for digest in self._read_digests()])
            raise Stopped(
                stop.received,
                f"stopped by {stop.received.name} with {count}; rerun the command to resume",
            )

    def complete(self, head: bytes) -> None:
        """Write the final head, and give the file its name; for the main process."""
        self._write_at(self._content, 0, head)
        move_into_place(self.content_path, self.path)
        _progress_of(self.path).unlink()

    def discard(self) -> None:
        """Remove the file so far; for the main process."""
        self.content_path.unlink(missing_ok=True)
        _progress_of(self.path).unlink(missing_ok=True)

    def _resume(self) -> list[bool]:
        """Lay out the file; return which batches are there already."""
        self._forget_unless_alike()
        there = [
            any(digest) and digest == self._digest_of_content(batch)
            for batch, digest in zip(self._batches, self._read_digests(), strict=True)
        ]
        if any(there):
            count = self._describe_count(there)
            _log.info("resuming '%s' with %s", self.content_path, count)
        self._write_at(self._content, 0, self.layout.head)
        self._content.truncate(self.layout.place(self.layout.num_rows))
        return there

    def _forget_unless_alike(self) -> None:
        """Reset the progress if it is damaged, or of batches that may round differently."""
        num_bytes = len(self._first_line) + _DIGEST_BYTES * len(self._batches)
        found = os.pread(self._progress.fileno(), num_bytes + 1, 0)
        if len(found) == num_bytes and found.startswith(self._first_line):
            return
        if found:
            _log.warning(
                "'%s' has %s, expected %s; extracting all features again",
                _progress_of(self.path),
                found.partition(b"\n")[0][:100].decode(errors="backslashreplace"),
                self.origin,
            )
        # Zeros take their place on the disk, which may be full when they are to change.
        self._progress.truncate(0)
        self._write_at(self._progress, 0, self._first_line.ljust(num_bytes, b"\0"))

    def _read_digests(self) -> list[bytes]:
        start, count = len(self._first_line), len(self._batches)
        table = os.pread(self._progress.fileno(), _DIGEST_BYTES * count, start)
        return [table[_DIGEST_BYTES * i :][:_DIGEST_BYTES] for i in range(count)]

    def _digest_of_content(self, batch: range) -> bytes:
        first, end = self.layout.place(batch.start), self.layout.place(batch.stop)
        return hashlib.sha256(os.pread(self._content.fileno(), end - first, first)).digest()

    def _write(self, first_row: int, rows: Tensor) -> None:
        rows = rows.to(self.layout.dtype).contiguous()
        data = rows.numpy().data.cast("B")
        self._write_at(self._content, self.layout.place(first_row), data)
        # Others are extracted again, so that a resumed extraction also ends in the error. A sum is
        # not finite if a number is not, and takes a fraction of the time of looking at each.
        if bool(rows.sum(dtype=torch.float32).isfinite()):
            self._unrecorded[first_row // self.batch_size] = hashlib.sha256(data).digest()
        if time.monotonic() >= self._next_flush:
            self._flush()

    def _flush(self) -> None:
        """Flush rows to disk, where other machines of a network see them, then record them."""
        started = time.monotonic()
        with self._saying_how_to_resume():
            os.fsync(self._content.fileno())
        for index, digest in self._unrecorded.items():
            self._write_at(self._progress, len(self._first_line) + _DIGEST_BYTES * index, digest)
        self._unrecorded.clear()
        ended = time.monotonic()
        self._next_flush = ended + max(_FLUSH_SECONDS, _LEAST_WORK_PER_FLUSH * (ended - started))

    def _write_at(self, file: FileIO, place: int, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        with self._saying_how_to_resume():
            while rest:
                written = os.pwrite(file.fileno(), rest, place)
                rest, place = rest[written:], place + written

    @contextmanager
    def _saying_how_to_resume(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write '{self.content_path}': {error.strerror}; mend that and rerun the "
                "command to resume"
            ) from None

    def _describe_count(self, there: list[bool]) -> str:
        count = sum(
            len(batch) for batch, is_there in zip(self._batches, there, strict=True) if is_there
        )
        return f"{count} of {self.layout.num_rows} images extracted"


def _content_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _progress_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_PROGRESS_SUFFIX}")


def remove_abandoned(folder: Path, suffix: str) -> None:
    """Delete the unlocked partial files in a folder that are old, or whose file is complete.

    Args:
        folder: The folder.
        suffix: Of the complete files.
    """
    for progress in folder.glob(f"*{suffix}{_PROGRESS_SUFFIX}"):
        with suppress(OSError), progress.open("r+b", buffering=0) as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            is_abandoned = age > _ABANDONED_SECONDS or progress.with_suffix("").exists()
            if is_abandoned and lock_alone(file, progress):
                _content_of(progress.with_suffix("")).unlink(missing_ok=True)
                progress.unlink()
