"""Read damaged files in processes with limits, and count the outcomes."""

import logging
import multiprocessing
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.faults.damage.mutants import UNREADABLE, Mutate, damaged, mutate, without_permission
from benchmarks.measure import extra_memory
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.failures import describe_error

BATCH = 250
SECONDS_PER_MUTANT = 10
ALLOWANCE = 64 * 2**20
"""Bytes a reader may take beyond twice the file: buffers, parsers' stacks and error texts."""
_GRACE_SECONDS = 5
# Whatever reads without a limit meets this one before the machine's.
_ADDRESS_SPACE = 2 * 2**30

REFUSED, SAME, OTHER = "refused", "same", "other valid"
FINDINGS = (
    "another exception",
    "crash",
    "too slow",
    "too much memory",
    "another answer",
    "unclear refusal",
)


class TooSlowError(BaseException):
    """Raised on timeout; no exception handler may take it for damage."""


IGNORED = "ignored"
"""Answer of a reader that passes a file over, which it must log."""


class _Told(logging.Handler):
    """Keeps the lines that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line."""
        self.text += record.getMessage() + "\n"


_told = _Told()


@dataclass(frozen=True)
class Kind:
    """A kind of file, with the reader that the product has for it."""

    name: str
    write: Callable[[Path], Path]
    """Writes a valid file, and what belongs to it, into an empty folder; returns its path."""
    read: Callable[[Path], object]
    """Returns what the file says; equal values are the same answer."""
    change: Mutate = mutate
    has_checksum: bool = False
    """Another answer than the undamaged file's is a finding."""
    harmless: tuple[str, ...] = ()
    """Swaps that leave valid files, such as a folder among folders of images."""
    share: float = 1.0
    """Share of the mutants that are tried, of files that take long to read."""


@dataclass
class Outcomes:
    """Outcomes of reading the mutants of one kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    """A line each: mutant, class, details."""
    peak_mib: float = 0.0
    """Most memory that reading a mutant added."""
    seconds: float = 0.0

    @property
    def num_mutants(self) -> int:
        """Number of mutants read."""
        return sum(self.counts.values())

    @property
    def num_findings(self) -> int:
        """Number of mutants with a forbidden outcome."""
        return sum(self.counts[name] for name in FINDINGS)


def try_mutants(kind: Kind, count: int, seed: int) -> Outcomes:
    """Read mutants of a kind in batches, each in a process.

    Args:
        kind: The kind.
        count: Number of mutants, of which the kind's share is tried.
        seed: Number of the first.
    """
    outcomes = Outcomes(kind.name)
    count = max(1, round(kind.share * count))
    started = time.perf_counter()
    next_seed = seed
    while next_seed < seed + count:
        end = min(next_seed + BATCH, seed + count)
        next_seed = _try_batch(kind, range(next_seed, end), outcomes)
    outcomes.seconds = time.perf_counter() - started
    return outcomes


def _try_batch(kind: Kind, seeds: range, outcomes: Outcomes) -> int:
    """Read a batch; return the number of the mutant after the last one read."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_batch, args=(kind, seeds, sender))
    process.start()
    sender.close()
    done = seeds.start

    def note(what: str, details: str, added: int) -> None:
        outcomes.counts[what] += 1
        outcomes.peak_mib = max(outcomes.peak_mib, added / 2**20)
        if what in FINDINGS:
            outcomes.findings.append(f"{kind.name}, mutant {done}: {what}: {details}")

    try:
        receiver.recv()  # the sound file has been written and read
        while receiver.poll(SECONDS_PER_MUTANT + _GRACE_SECONDS):
            note(*receiver.recv())
            done += 1
        note("too slow", "no answer, ended", 0)
        done += 1
        process.kill()
    except EOFError:
        process.join()
        if process.exitcode != 0:
            note("crash", f"the process ended with {process.exitcode}", 0)
            done += 1
    process.join()
    receiver.close()
    return done


def _run_batch(kind: Kind, seeds: range, results: Connection) -> None:
    """Try a batch of mutants, sending each outcome immediately."""
    logging.basicConfig(handlers=[_told], force=True)
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        folder.mkdir()
        Path(name).chmod(0o755)
        path = kind.write(folder)
        content, sound = path.read_bytes(), kind.read(path)
        assert kind.read(path) == sound, "reading twice gives one answer"
        results.send(None)
        with _limited_memory():
            for seed in seeds:
                results.send(_try(kind, path, content, sound, random.Random(f"{kind.name} {seed}")))


def _try(
    kind: Kind, path: Path, content: bytes, sound: object, chance: random.Random
) -> tuple[str, str, int]:
    """Read one mutant; return the outcome, its details and the memory added."""
    found = ("", "")

    def read() -> None:
        nonlocal found
        signal.alarm(SECONDS_PER_MUTANT)
        try:
            found = _outcome(kind, path, sound, swap)
        except TooSlowError:
            found = "too slow", swap
        finally:
            signal.alarm(0)

    with damaged(path, content, kind.change, chance) as swap:
        size = path.stat().st_size if not swap else len(content)
        added = extra_memory(read, "cpu")
    if added > 2 * size + ALLOWANCE and found[0] not in FINDINGS:
        found = "too much memory", f"{added:,} bytes for a file of {size:,}"
    return *found, added


def _outcome(kind: Kind, path: Path, sound: object, swap: str) -> tuple[str, str]:
    _told.text = ""
    try:
        with without_permission(path) if swap == UNREADABLE else nullcontext():
            answer = kind.read(path)
    except (UserError, OSError) as error:
        message = describe_error(error)
        # The folder stands for its file where a whole checkpoint is refused.
        is_clear = path.parent.name in message and len(message) > len(str(path)) + 4
        return (REFUSED, "") if is_clear else ("unclear refusal", f"{swap} {message}"[:300])
    except Exception as error:  # counted as a finding
        return "another exception", f"{swap} {type(error).__name__}: {error}"[:300]
    if answer == sound:
        return SAME, ""
    if answer == IGNORED and path.name in _told.text:
        return REFUSED, ""
    if kind.has_checksum or (swap and swap not in kind.harmless):
        return "another answer", f"{swap} {answer}"[:300]
    return OTHER, ""


def _too_slow(*_: object) -> None:
    raise TooSlowError


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Limit the address space to what is in use and a little more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
