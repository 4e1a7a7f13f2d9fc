"""Compare the CPU time of commands that need no network with that of importing torch."""

import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Finding,
    Measurement,
    alternate,
    ratio,
)
from rsa_pretrain.plumbing.command_line import USER_ERROR_EXIT_CODE

_ROOT = Path(__file__).parents[1]
_TORCH = "import torch"
_EVALUATE = ("rsa_eval", "knn", "--random-init", "--config")
_DETECT = ("detection", "train", "--random-init")
_ANSWERS = {
    "rsa-pretrain --help": ("rsa_pretrain", "--help"),
    "rsa-pretrain run, unknown key": ("rsa_pretrain", "run", "digits/rsa", "seeed=1"),
    "rsa-pretrain run, missing config": ("rsa_pretrain", "run", "absent.yaml"),
    "rsa-eval --help": ("rsa_eval", "--help"),
    "rsa-eval knn, unknown key": (*_EVALUATE, "knn/dino", "seeed=1"),
    "rsa-eval knn, missing config": (*_EVALUATE, "absent.yaml"),
    "rsa-detect --help": ("detection", "--help"),
    "rsa-detect train, unknown key": (*_DETECT, "toy_shapes", "seeed=1"),
    "rsa-detect train, missing config": (*_DETECT, "absent.yaml"),
}


class StartupSettings(BenchmarkSettings):
    """Number of repeats; no GPU is involved."""

    device: Literal["cpu"] = "cpu"
    """Device to run on."""


def measure(settings: StartupSettings) -> Measurement:
    """Measure each command's CPU seconds, user and system, in a new process."""
    candidates = {_TORCH: partial(_run, 0, "-c", _TORCH)} | {
        name: partial(_run, 0 if "--help" in words else USER_ERROR_EXIT_CODE, "-m", *words)
        for name, words in _ANSWERS.items()
    }
    seconds = alternate(candidates, settings.repeats, settings.device, _seconds_of_children)
    findings = [
        Finding(
            what=f"CPU time of {name} over that of {_TORCH}",
            value=ratio(seconds, name, _TORCH),
            unit="×",
            bound="at most",
            limit=0.3,
        )
        for name in _ANSWERS
    ]
    return Measurement(findings, seconds)


def _run(exit_code: int, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != exit_code:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


BENCHMARK = Benchmark(
    settings=StartupSettings,
    measure=measure,
    summary="Answering --help, an unknown key and a missing config, compared with importing torch.",
)
