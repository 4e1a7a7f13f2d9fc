import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rsa_eval.features import partial
from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.forward import NonFiniteFeatures
from rsa_eval.features.identity import FeatureIdentity
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import Stopped

CPU = torch.device("cpu")
NUM_ROWS, WIDTH, BATCH_SIZE = 30, 3, 4
ROWS = torch.arange(1.0, NUM_ROWS * WIDTH + 1).view(NUM_ROWS, WIDTH)
STARTS = list(range(0, NUM_ROWS, BATCH_SIZE))

Event = Callable[[int], None]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record each batch at once, and ask for a lock all the time."""
    monkeypatch.setattr(partial, "_FLUSH_SECONDS", 0)
    monkeypatch.setattr(partial, "_LEAST_WORK_PER_FLUSH", 0)
    monkeypatch.setattr("rsa_pretrain.plumbing.locked_file._POLL_SECONDS", 0.01)


def _entry(folder: Path, name: str = "made-up") -> CacheEntry:
    identity = FeatureIdentity(
        format_version=2,
        weights="w",
        images="i",
        transform="t",
        layers=("layer4",),
        precision="fp32",
        feature_dtype="fp32",
        library_versions={},
    )
    return CacheEntry(folder, name, identity, torch.arange(NUM_ROWS), WIDTH, torch.float32)


@pytest.fixture
def entry(tmp_path: Path) -> CacheEntry:
    """Not extracted yet."""
    return _entry(tmp_path / "cache")


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The file of an extraction that nothing interrupts."""
    entry = _entry(tmp_path / "whole")
    assert _extract(entry) == STARTS
    return entry.path.read_bytes()


def _extract(
    entry: CacheEntry, before: Event = lambda start: None, batch_size: int = BATCH_SIZE
) -> list[int]:
    """Extract; return the first rows of the batches that were computed."""
    computed = []

    def rows_of(batches: list[range]) -> Generator[tuple[int, Tensor], None, None]:
        for batch in batches:
            before(batch.start)
            computed.append(batch.start)
            yield batch.start, ROWS[batch.start : batch.stop]

    entry.ensure(batch_size, CPU, rows_of)
    return computed


def _forked(work: Callable[[], object]) -> int:
    """Do something in another process; return its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def _interrupt(entry: CacheEntry, start: int) -> None:
    """Extract the batches before one, of which another process knows nothing."""

    def fail(found: int) -> None:
        if found == start:
            raise UserError("cannot decode")

    with pytest.raises(UserError, match="cannot decode"):
        _extract(entry, fail)


def _part(entry: CacheEntry) -> Path:
    return entry.path.with_name(f"{entry.path.name}.part")


def _progress(entry: CacheEntry) -> Path:
    return entry.path.with_name(f"{entry.path.name}.progress")


def _kill_self(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _is(start: int) -> Event:
    return lambda found: _kill_self() if found == start else None


@pytest.mark.parametrize("start", [0, 4, 20, 28])
def test_a_killed_extraction_resumes_at_the_batch(
    entry: CacheEntry, whole: bytes, caplog: pytest.LogCaptureFixture, start: int
) -> None:
    """After kill -9 nothing has the final name, and the batches before are not computed again."""
    child = _forked(lambda: _extract(entry, _is(start)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not entry.path.exists()
    with caplog.at_level(logging.INFO):
        assert _extract(entry) == [one for one in STARTS if one >= start]
    assert (f"with {start} of 30 images extracted" in caplog.text) == (start > 0)
    assert entry.path.read_bytes() == whole
    assert list(entry.folder.iterdir()) == [entry.path]


@pytest.mark.parametrize(
    "place",
    [
        "rsa_eval.features.partial.PartialFile._resume",
        "rsa_eval.features.partial.PartialFile.complete",
        "rsa_eval.features.partial.move_into_place",
        "rsa_pretrain.plumbing.atomic_files._flush_to_disk",
    ],
)
def test_a_kill_before_or_after_the_batches_loses_nothing(
    entry: CacheEntry, whole: bytes, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Before the first batch, before the checksum is written, and before the file is renamed."""
    _interrupt(entry, 20)
    with monkeypatch.context() as patch:
        patch.setattr(place, _kill_self)
        child = _forked(lambda: _extract(entry))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not entry.path.exists()
    assert _extract(entry) == ([20, 24, 28] if place.endswith("_resume") else [])
    assert entry.path.read_bytes() == whole


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _cut(path: Path, num_bytes: int) -> None:
    os.truncate(path, path.stat().st_size - num_bytes)


ROW_BYTES = 4 * WIDTH
DIGESTS = 32 * len(STARTS)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda entry: _flip(_progress(entry), -DIGESTS + 32), [4]),  # a digest
        (lambda entry: _flip(_part(entry), -ROW_BYTES * (NUM_ROWS - 9)), [8]),  # a row
        (lambda entry: _cut(_part(entry), ROW_BYTES * (NUM_ROWS - 9)), [8, 12, 16]),
        (lambda entry: _part(entry).unlink(), STARTS[:5]),
        (lambda entry: _flip(_part(entry), 20), []),  # the header is written again
        (lambda entry: _cut(_progress(entry), 1), STARTS[:5]),
        (lambda entry: _progress(entry).write_bytes(b""), STARTS[:5]),
        (lambda entry: _progress(entry).write_bytes(b"\xff" * 999), STARTS[:5]),
        (lambda entry: _progress(entry).unlink(), STARTS[:5]),
    ],
)
def test_what_is_damaged_is_extracted_again(
    entry: CacheEntry, whole: bytes, damage: Callable[[CacheEntry], None], again: list[int]
) -> None:
    """Rows or their record; the result is the same."""
    _interrupt(entry, 20)
    damage(entry)
    assert _extract(entry) == [*again, 20, 24, 28]
    assert entry.path.read_bytes() == whole


def test_batches_that_may_round_differently_are_not_mixed(
    entry: CacheEntry,
    whole: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those of another size or device are all extracted again, and the log says why."""
    _interrupt(entry, 20)
    with monkeypatch.context() as patch:
        patch.setattr(partial, "describe_hardware", lambda device: "a GPU")
        _interrupt(entry, 12)
    assert "expected batches of 4 on a GPU; extracting all features again" in caplog.text
    assert _extract(entry, batch_size=10) == [0, 10, 20]
    assert "has batches of 4 on a GPU, expected batches of 10 on" in caplog.text
    assert entry.path.read_bytes() == whole


def _paused(entry: CacheEntry, start: int) -> tuple[int, int, int]:
    """Start an extraction that waits before a batch.

    Returns:
        The process's number, and descriptors to read when it waits, and to write for it to resume.
    """
    there, arrived = os.pipe()
    resumed, resume = os.pipe()

    def pause(found: int) -> None:
        if found == start:
            os.write(arrived, b"x")
            os.read(resumed, 1)

    return _forked(lambda: _extract(entry, pause)), there, resume


@pytest.mark.parametrize("is_killed", [True, False])
def test_another_command_waits(
    entry: CacheEntry, whole: bytes, caplog: pytest.LogCaptureFixture, is_killed: bool
) -> None:
    """It uses the file that the first one completes, or resumes its work once it is killed."""
    child, there, resume = _paused(entry, 12)
    os.read(there, 1)

    def end() -> None:
        while "waiting for another command" not in caplog.text:
            time.sleep(0.01)
        if is_killed:
            os.kill(child, signal.SIGKILL)
        else:
            os.write(resume, b"x")

    ending = threading.Thread(target=end)
    ending.start()
    with caplog.at_level(logging.INFO):
        assert _extract(entry) == ([12, 16, 20, 24, 28] if is_killed else [])
    ending.join()
    os.waitpid(child, 0)
    assert entry.path.read_bytes() == whole
    assert list(entry.folder.iterdir()) == [entry.path]


def test_abandoned_work_is_removed_after_a_week(entry: CacheEntry) -> None:
    """By the next extraction into the folder, unless a process works on it."""
    others = {name: _entry(entry.folder, name) for name in ("old", "young", "running")}
    for name in ("old", "young"):
        _interrupt(others[name], 8)
    child, there, _ = _paused(others["running"], 8)
    os.read(there, 1)
    foreign = entry.folder / "notes.progress"
    foreign.touch()
    for path in (foreign, _progress(others["old"]), _progress(others["running"])):
        os.utime(path, (0, 0))
    _extract(entry)
    kept = [f(others[name]) for name in ("young", "running") for f in (_part, _progress)]
    assert set(entry.folder.iterdir()) == {entry.path, foreign, *kept}
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_batch(
    entry: CacheEntry, whole: bytes, number: signal.Signals
) -> None:
    """The error says how much is done; the rest follows."""
    said = f"stopped by {number.name} with 12 of 30 images extracted; rerun the command to resume"
    with pytest.raises(Stopped, match=said):
        _extract(entry, lambda start: os.kill(os.getpid(), number) if start == 8 else None)
    assert _extract(entry) == [12, 16, 20, 24, 28]
    assert entry.path.read_bytes() == whole


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_is_no_loss(
    entry: CacheEntry, whole: bytes, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Rows count once they are flushed; the error says how to resume."""

    def fill(start: int) -> None:
        if start == 12:
            monkeypatch.setattr(os, call, full)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=r"part': No space left on device; mend that and rerun"):
        _extract(entry, fill)
    monkeypatch.undo()
    assert _extract(entry) == [12, 16, 20, 24, 28]
    assert entry.path.read_bytes() == whole


def test_rows_are_flushed_before_they_are_recorded_or_others_read_them(
    entry: CacheEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main process may stand on another machine; it reads the rows after the barrier."""
    events: list[str] = []
    record = partial.PartialFile._write_at

    def noted(part: partial.PartialFile, file: object, place: int, data: bytes) -> None:
        if len(data) == 32:
            events.append("record")
        record(part, file, place, data)  # type: ignore[arg-type]

    monkeypatch.setattr(partial.PartialFile, "_write_at", noted)
    monkeypatch.setattr(partial, "_FLUSH_SECONDS", 999)
    monkeypatch.setattr(os, "fsync", lambda number: events.append("flush"))
    monkeypatch.setattr("rsa_eval.features.cache.wait_for_all", lambda: events.append("wait"))
    _extract(entry)
    assert events == ["flush", *["record"] * len(STARTS), "wait", "wait"]


def test_features_that_are_not_finite_are_found_again(entry: CacheEntry) -> None:
    """Also if they were extracted before an interruption; then nothing is left."""
    broken = ROWS.clone()
    broken[5] = torch.inf
    computed: list[int] = []

    def rows_of(last: int) -> Callable[[list[range]], Iterator[tuple[int, Tensor]]]:
        def found(batches: list[range]) -> Generator[tuple[int, Tensor], None, None]:
            for batch in batches:
                if batch.start == last:
                    raise UserError("cannot decode")
                computed.append(batch.start)
                yield batch.start, broken[batch.start : batch.stop]
            raise NonFiniteFeatures("not finite")

        return found

    with pytest.raises(UserError, match="cannot decode"):
        entry.ensure(BATCH_SIZE, CPU, rows_of(20))
    computed.clear()
    with pytest.raises(NonFiniteFeatures, match="not finite"):
        entry.ensure(BATCH_SIZE, CPU, rows_of(99))
    assert computed == [4, 20, 24, 28]
    assert list(entry.folder.iterdir()) == []
