"""Collect a report's inputs again and again, reading only the files that changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rsa_eval.records.find import logs_and_records
from rsa_eval.records.record import Record, read_record
from rsa_eval.report.inputs import Inputs, TrainingRun, assemble, describe_run
from rsa_eval.serve.growing_log import GrowingLog
from rsa_pretrain.config import CONFIG_FILE
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.machines import MACHINES_FILE
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE
from rsa_pretrain.plumbing.user_paths import real_path

Stamp = tuple[int, int, int] | None
"""Time of change in ns, size and inode of a file; None for an absent one."""


@dataclass(frozen=True)
class _Kept:
    stamps: tuple[Stamp, ...]
    found: TrainingRun | Record | UserError


class Watch:
    """The records and runs below some paths, as they are now.

    Args:
        paths: Run folders, record files, or folders of either.

    Raises:
        UserError: If a path does not exist; an empty folder may be filled later.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if not path.exists():
                raise UserError(
                    f"'{path}' does not exist; expected a run folder, a record, or a folder of "
                    "either, which may be empty still"
                )
        self._paths = paths
        self._listed: dict[Path, list[Path]] = {}
        self._kept: dict[Path, _Kept] = {}
        self._logs: dict[Path, GrowingLog] = {}

    def collect(self) -> Inputs:
        """Return what is there; a file that is damaged, but not one that vanished, is described."""
        files = dict(self._files())
        inputs = assemble(files.items(), self._read)
        for kept in (self._kept, self._logs):
            for gone in kept.keys() - files.keys():
                del kept[gone]
        return inputs

    def stamps(self) -> dict[Path, tuple[Stamp, ...]]:
        """Return the stamps of each file and of those beside it, as of the last ``collect``."""
        return {file: kept.stamps for file, kept in self._kept.items()}

    def _files(self) -> Iterator[tuple[Path, Path]]:
        seen = set()
        for path in self._paths:
            try:
                self._listed[path] = logs_and_records(path)
            except UserError:  # nothing is there yet, or any more
                self._listed[path] = []
            except OSError:  # a folder vanished meanwhile; its files are left out below
                self._listed.setdefault(path, [])
            for file in self._listed[path]:
                real = real_path(file)
                if stamp_of(file) is not None and real not in seen:
                    seen.add(real)
                    yield file, path

    def _read(self, file: Path, given: Path) -> TrainingRun | Record:
        names = (CONFIG_FILE, MACHINES_FILE) if file.name == METRICS_FILE else ()
        # Taken before reading: a change meanwhile is read the next time.
        stamps = tuple(stamp_of(path) for path in (file, *map(file.with_name, names)))
        before = self._kept.get(file)
        if before is None or before.stamps != stamps:
            self._kept[file] = _Kept(stamps, self._read_again(file, given, stamps, before))
        found = self._kept[file].found
        if isinstance(found, UserError):
            raise found
        return found

    def _read_again(
        self, file: Path, given: Path, stamps: tuple[Stamp, ...], before: _Kept | None
    ) -> TrainingRun | Record | UserError:
        try:
            if file.name != METRICS_FILE:
                return read_record(file)
            metrics = self._logs.setdefault(file, GrowingLog(file)).read()
            if before is not None and before.stamps[1:] == stamps[1:]:
                run = before.found
                if isinstance(run, TrainingRun):
                    return replace(run, metrics=metrics)
            return describe_run(file, given, metrics)
        except UserError as error:
            return error


def stamp_of(path: Path) -> Stamp:
    """Return a file's stamp."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
