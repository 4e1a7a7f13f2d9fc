"""Measure ratios within one run: alternating repeats, medians, and a description of the machine."""

import ctypes
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.files import Section, to_tree
from rsa_pretrain.plumbing.device import describe_hardware
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import is_there
from rsa_pretrain.plumbing.text_files import read_limited
from rsa_pretrain.weights.metadata import library_versions

Device = Literal["cpu", "cuda"]
RESULTS = Path(__file__).parent / "results"


class BenchmarkSettings(Section):
    """Settings of every benchmark."""

    on_gpu: ClassVar[dict[str, Any]] = {}
    """Defaults on a GPU, by setting, that differ from those on a CPU."""

    device: Device = "cpu"
    """Device to run on."""
    repeats: Annotated[int, Field(ge=1)] = 5
    """Timed runs of each candidate, after a warm-up run."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds the data."""
    fresh_processes: bool = True
    """Measure peak memory on a CPU in new processes, each of which imports torch."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_for_gpu(cls, given: dict[str, Any]) -> dict[str, Any]:
        return cls.on_gpu | given if given.get("device") == "cuda" else given


class Finding(Section):
    """A number and its required bound."""

    what: str
    value: float
    unit: str
    """× for a ratio of medians."""
    bound: Literal["at most", "at least"]
    limit: float

    @property
    def met(self) -> bool:
        """True if the number is within its bound."""
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit


class Figure(Section):
    """A number without a required bound."""

    what: str
    value: float
    unit: str


class Result(Section):
    """The complete result of one benchmark run."""

    benchmark: str
    findings: list[Finding]
    figures: list[Figure] = Field(default_factory=list)
    """Recorded beside the findings."""
    seconds: dict[str, list[float]]
    """Every timed run, by candidate."""
    facts: dict[str, str] = Field(default_factory=dict)
    """Results that are text, by name."""
    settings: dict[str, Any]
    hardware: str
    library_versions: dict[str, str]
    command: list[str]
    created: str
    """UTC, ISO 8601."""

    @property
    def device(self) -> str:
        """Device of the run."""
        return str(self.settings["device"])


@dataclass(frozen=True)
class Measurement:
    """A benchmark's findings, and the seconds behind them."""

    findings: list[Finding]
    seconds: dict[str, list[float]]
    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A claim with the program that measures it."""

    settings: type[BenchmarkSettings]
    measure: Callable[[Any], Measurement]
    """From settings (of type ``settings``) to findings."""
    summary: str


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int,
    device: Device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time candidates in turn, so that other load on the machine affects all of them.

    Args:
        candidates: Functions to run, by name; each has one untimed run first.
        repeats: Timed runs of each.
        device: Device they run on; a GPU is synchronised.
        clock: Returns seconds.

    Returns:
        Seconds of each run, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, run in candidates.items():
            _wait_for(device)
            started = clock()
            run()
            _wait_for(device)
            if turn > 0:
                seconds[name].append(clock() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], candidate: str, baseline: str) -> float:
    """Return a candidate's median time over the baseline's."""
    return statistics.median(seconds[candidate]) / statistics.median(seconds[baseline])


def rates(seconds: Mapping[str, list[float]], num_images: int) -> list[Figure]:
    """Return the images per second of each candidate's median run.

    Args:
        seconds: Result of ``alternate``.
        num_images: Images per run.
    """
    return [
        Figure(what=name, value=num_images / statistics.median(runs), unit="images/s")
        for name, runs in seconds.items()
    ]


def goals(speeds: list[Figure], limits: Mapping[str, float], device: Device) -> list[Finding]:
    """Return the findings of speeds that an H100 should reach; on other devices there are none.

    Args:
        speeds: Result of ``rates``.
        limits: Images per second to reach, by candidate.
        device: Device they were measured on.
    """
    if device == "cpu" or "H100" not in torch.cuda.get_device_name():
        return []
    return [
        Finding(**speed.model_dump(), bound="at least", limit=limits[speed.what])
        for speed in speeds
        if speed.what in limits
    ]


def extra_memory(run: Callable[[], object], device: Device) -> int:
    """Return the bytes by which a run's peak memory exceeds the memory in use before it.

    On a CPU this is the process's resident memory as counted by Linux.
    """
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    # What was freed but is still resident would be handed out again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current use
    before = _peak_of_process()
    run()
    return _peak_of_process() - before


def peak_memory(
    candidates: Mapping[str, Callable[[], object]], settings: BenchmarkSettings
) -> list[Figure]:
    """Return the peak memory of each candidate.

    On a CPU that is all memory of a new process. Memory of a GPU is what the candidate adds to that
    in use, which a GPU counts in this process.

    Args:
        candidates: Functions to run, by name: module-level functions, or partials of them.
        settings: Those of the benchmark.
    """
    if settings.device == "cuda" or not settings.fresh_processes:
        kind = "GPU memory" if settings.device == "cuda" else "memory added"
        added = {name: extra_memory(run, settings.device) for name, run in candidates.items()}
        return [
            Figure(what=f"peak {kind}, {name}", value=size / 2**20, unit="MiB")
            for name, size in added.items()
        ]
    figures = []
    for name, run in candidates.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(_peak_of, run).result()
        figures.append(Figure(what=f"peak resident memory, {name}", value=peak / 2**20, unit="MiB"))
    return figures


def run_benchmark(
    name: str, benchmark: Benchmark, settings: BenchmarkSettings, words: Sequence[str] = ()
) -> Result:
    """Measure, and add a description of the machine and the library versions.

    Args:
        name: The benchmark's.
        benchmark: What to measure.
        settings: Its settings.
        words: The settings as they were stated on the command line.

    Raises:
        UserError: If the device is not available.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' was requested, but torch sees no GPU; use device=cpu")
    measured = benchmark.measure(settings)
    return Result(
        benchmark=name,
        findings=measured.findings,
        figures=measured.figures,
        seconds=measured.seconds,
        facts=measured.facts,
        settings=to_tree(settings),
        hardware=describe_hardware(torch.device(settings.device)),
        library_versions=library_versions() | {"python": platform.python_version()},
        command=["python", "-m", "benchmarks", name, *words],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def result_path(name: str, device: str, folder: Path = RESULTS) -> Path:
    """Return the path of a benchmark's last result on a device."""
    return folder / f"{name}-{device}.json"


def write_result(result: Result, folder: Path = RESULTS) -> Path:
    """Write a result as JSON, replacing the last one on that device."""
    path = result_path(result.benchmark, result.device, folder)
    write_text(path, result.model_dump_json(indent=2) + "\n")
    return path


def read_result(path: Path) -> Result | None:
    """Read a result; None if there is none.

    Raises:
        UserError: If the file is not a result.
    """
    if not is_there(path):
        return None
    content = read_limited(path)
    try:
        return Result.model_validate_json(content)
    except ValueError:
        raise UserError(f"'{path}' is not a benchmark result; remove it and rerun") from None


def _peak_of(run: Callable[[], object]) -> int:
    run()
    return _peak_of_process()


def _peak_of_process() -> int:
    status = Path("/proc/self/status").read_text()
    (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(kib)


def _wait_for(device: Device) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
