"""Measure the ceilings of a device: copying memory and multiplying matrices."""

import statistics
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from benchmarks.measure import Benchmark, BenchmarkSettings, Figure, Measurement, alternate

_COPY, BF16_PRODUCT = "copying memory, read and written", "product of bf16 matrices"
_FP32, _TF32 = "product of fp32 matrices", "product of fp32 matrices, rounded to TF32"
_QUERY = "name,driver_version,memory.total,power.limit,clocks.max.sm"


class CardSettings(BenchmarkSettings):
    """Sizes large enough to keep the device busy."""

    on_gpu: ClassVar[dict[str, Any]] = {"copied_mib": 4096, "side": 8192, "calls": 10}

    copied_mib: Annotated[int, Field(ge=1)] = 64
    """MiB copied."""
    side: Annotated[int, Field(ge=1)] = 512
    """Rows and columns of the matrices."""
    calls: Annotated[int, Field(ge=1)] = 2
    """Calls per timed run."""


def measure(settings: CardSettings) -> Measurement:
    """Time copies and products in turn."""
    device, side = torch.device(settings.device), settings.side
    source = torch.ones(settings.copied_mib * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    left, right = (torch.randn(side, side, device=device) for _ in range(2))
    half = [matrix.bfloat16() for matrix in (left, right)]
    runs: dict[str, Callable[[], object]] = {
        _COPY: lambda: target.copy_(source),
        BF16_PRODUCT: partial(torch.mm, *half),
        _FP32: partial(_product, left, right, tf32=False),
        _TF32: partial(_product, left, right, tf32=True),
    }
    if settings.device == "cpu":
        del runs[_TF32]
    seconds = alternate(
        {name: partial(_repeat, run, settings.calls) for name, run in runs.items()},
        settings.repeats,
        settings.device,
    )
    work = {name: 2 * side**3 for name in runs} | {_COPY: 2 * source.numel()}
    figures = [
        Figure(
            what=name,
            value=work[name] * settings.calls / statistics.median(times) / 1e12,
            unit="TB/s" if name == _COPY else "TFLOP/s",
        )
        for name, times in seconds.items()
    ]
    return Measurement([], seconds, figures, _facts(device))


def _repeat(run: Callable[[], object], calls: int) -> None:
    for _ in range(calls):
        run()


def _product(left: Tensor, right: Tensor, *, tf32: bool) -> Tensor:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return left @ right
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _facts(device: torch.device) -> dict[str, str]:
    """Return the commit and, of a GPU, what nvidia-smi and torch say of it."""
    facts = {"commit": _output("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD")}
    if device.type == "cuda":
        facts |= {
            _QUERY: _output("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"),
            "CUDA of torch": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
        }
    return facts


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return " ".join(done.stdout.split())


BENCHMARK = Benchmark(
    settings=CardSettings,
    measure=measure,
    summary="The device's ceilings: copying memory, and products of large matrices.",
)
