"""Profile a few training steps with torch's profiler, and sum their time by part.

The trainer names its parts by ``part``; the forward of each of the method's networks becomes a
separate part while a run is profiled. A part's time excludes the parts nested in it, so all of
them and ``other`` add up to the steps.
"""

import logging
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerAction, ProfilerActivity, profile, record_function, schedule

from rsa_pretrain.plumbing.atomic_files import atomic_file, write_text
from rsa_pretrain.plumbing.text_table import render_table
from rsa_pretrain.plumbing.torch_internals import DeviceType, profiler_enabled

_log = logging.getLogger(__name__)

# Steps skipped first: they compile, choose algorithms and fill caches.
SKIPPED_STEPS = 9
WARMUP_STEPS = 1
PROFILED_STEPS = 10
TRACE_FILE = "trace.json.gz"
SUMMARY_FILE = "summary.txt"

# Otherwise torch's profiler prints, among others, an error where there is no GPU.
_QUIET = "6"
_PART = "part: "
_STEP = "ProfilerStep"
_OTHER = "other"
_RECORDING = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


def part(name: str) -> AbstractContextManager[object]:
    """Return the context of one part of a step; a no-op unless a profiler is active."""
    return record_function(_PART + name) if profiler_enabled() else nullcontext()


@contextmanager
def profiled_steps(
    folder: Path, method: nn.Module, device: torch.device
) -> Iterator[Callable[[], None]]:
    """Profile some steps of the block, write their trace and summary, and log the summary.

    Args:
        folder: Receives the trace, for Perfetto or Chrome, and the summary.
        method: Its networks are its children.
        device: Device of the method.

    Yields:
        A callback for the end of each step.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", _QUIET)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    window = schedule(
        skip_first=SKIPPED_STEPS, wait=0, warmup=WARMUP_STEPS, active=PROFILED_STEPS, repeat=1
    )
    num_steps = 0

    def write(profiler: profile) -> None:
        if num_steps:
            _write(folder, profiler, num_steps)

    def end_step() -> None:
        nonlocal num_steps
        num_steps += profiler.current_action in _RECORDING
        profiler.step()

    ranges = [_ForwardRange(name, network) for name, network in method.named_children()]
    try:
        with profile(activities=activities, schedule=window, on_trace_ready=write) as profiler:
            yield end_step
    finally:
        for forward_range in ranges:
            forward_range.remove()
        if not num_steps:
            _log.warning(
                "nothing was profiled: the training ended within its first %d steps",
                SKIPPED_STEPS + WARMUP_STEPS,
            )


class PartTimes(NamedTuple):
    """Seconds by part, in order of first appearance."""

    num_steps: int
    host: dict[str, float]
    """Time between entering and leaving the part, without the parts nested in it."""
    device: dict[str, float]
    """Time of the kernels and copies launched in the part; empty on a CPU."""


def time_by_part(events: Iterable[Any], num_steps: int) -> PartTimes:
    """Sum a profile's times by part.

    Args:
        events: The profiler's ``FunctionEvent``, times in microseconds.
        num_steps: Steps that ended; the profiler has begun another when a run ends early.
    """
    every = list(events)
    on_host = [event for event in every if event.device_type == DeviceType.CPU]
    ends = sorted(event.time_range.end for event in on_host if event.name.startswith(_STEP))
    on_host = [event for event in on_host if event.time_range.start < ends[num_steps - 1]]
    on_device = [event for event in every if event.device_type != DeviceType.CPU]
    starts, names = _timeline(on_host)
    host: dict[str, float] = defaultdict(float)
    for start, end, name in zip(starts, starts[1:], names, strict=False):
        if name is not None:
            host[name] += end - start
    device: dict[str, float] = defaultdict(float)
    for event in on_host:
        if not event.is_user_annotation:
            # In any thread: autograd's own thread launches kernels within "backward".
            name = names[bisect_right(starts, event.time_range.start) - 1] if starts else None
            device[name or _OTHER] += sum(kernel.duration for kernel in event.kernels)
    busy = sum(_duration(event) for event in on_device if not event.is_user_annotation)
    device[_OTHER] += busy - sum(device.values())
    return PartTimes(
        num_steps,
        {name: time / 1e6 for name, time in host.items()},
        {name: device[name] / 1e6 for name in host} if on_device else {},
    )


def format_summary(times: PartTimes) -> str:
    """Return the times as a table, per step."""
    total = sum(times.host.values())
    columns = ["part", "ms/step", "share"]
    rows: list[list[object]] = [
        [name, _per_step(seconds, times), f"{seconds / total:.1%}"]
        for name, seconds in times.host.items()
    ]
    rows.append(["step", _per_step(total, times), f"{1:.1%}"])
    if times.device:
        columns.append("device ms/step")
        for row in rows[:-1]:
            row.append(_per_step(times.device[str(row[0])], times))
        rows[-1].append(_per_step(sum(times.device.values()), times))
    return render_table(columns, rows)


class _ForwardRange:
    """Makes each forward of a network a part; compiled networks are entered from outside."""

    def __init__(self, name: str, network: nn.Module) -> None:
        self._name = f"forward {name}"
        self._entered: list[AbstractContextManager[object]] = []
        self._hooks = [
            network.register_forward_pre_hook(_uncompiled(self._enter)),
            network.register_forward_hook(_uncompiled(self._leave)),
        ]

    def _enter(self, *_: object) -> None:
        self._entered.append(part(self._name))
        self._entered[-1].__enter__()

    def _leave(self, *_: object) -> None:
        self._entered.pop().__exit__(None, None, None)

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _uncompiled(hook: Callable[..., None]) -> Callable[..., None]:
    """Exclude a hook from torch.compile's traces, where ranges are lost."""
    kept_out: Callable[..., None] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return kept_out


def _timeline(events: list[Any]) -> tuple[list[float], list[str | None]]:
    """Return the times at which the innermost part changes, and that part; None outside steps."""
    ranges = [event for event in events if event.name.startswith((_PART, _STEP))]
    starts: list[float] = []
    names: list[str | None] = []
    open_until: list[tuple[float, str]] = []

    def close_until(time: float) -> None:
        while open_until and open_until[-1][0] <= time:
            starts.append(open_until.pop()[0])
            names.append(open_until[-1][1] if open_until else None)

    for event in sorted(ranges, key=lambda event: (event.time_range.start, -_duration(event))):
        close_until(event.time_range.start)
        name = event.name.removeprefix(_PART) if event.name.startswith(_PART) else _OTHER
        open_until.append((event.time_range.end, name))
        starts.append(event.time_range.start)
        names.append(name)
    close_until(float("inf"))
    return starts, names


def _duration(event: Any) -> float:
    return float(event.time_range.end - event.time_range.start)


def _per_step(seconds: float, times: PartTimes) -> Decimal:
    return Decimal(f"{1e3 * seconds / times.num_steps:.3f}")


def _write(folder: Path, profiler: profile, num_steps: int) -> None:
    with atomic_file(folder / TRACE_FILE) as temporary:
        profiler.export_chrome_trace(str(temporary))
    times = time_by_part(profiler.events() or (), num_steps)  # type: ignore[no-untyped-call]
    summary = format_summary(times)
    write_text(folder / SUMMARY_FILE, summary + "\n")
    _log.info("time of %d steps by part; trace in '%s'\n%s", times.num_steps, folder, summary)
