"""Compare a training step of RSA with BYOL's and with its bare passes, on views in memory.

RSA and BYOL (AA) need the same passes: two forward and backward through the online network, two
forward through the target. RSA's loss has two more terms.

On a GPU eager steps take as long as the CPU needs to launch their operations. Captured ones are
replayed as one CUDA graph, and so are the bare passes that they are compared with.
"""

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    Finding,
    Measurement,
    alternate,
    goals,
    peak_memory,
    rates,
    ratio,
)
from benchmarks.modes import Mode, as_in_training, label, training_in
from benchmarks.passes import FORWARDS_PER_STEP, prepared_passes
from benchmarks.training import BYOL, RSA
from rsa_pretrain.components.backbone import gflops_per_image
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.training.trainer import Trainer

_RSA, _BYOL, _BARE = "RSA", "BYOL (AA)", "bare passes"
_METHODS = {_RSA: RSA, _BYOL: BYOL}
_NUM_VIEWS = {_RSA: 4, _BYOL: 2}
# Images per second on an H100 in bf16, by network and side of the images.
_GOALS = {("resnet50", 224): {label(_RSA, "captured"): 1_600.0}}


class StepSettings(BenchmarkSettings):
    """Network, images and precision of the step."""

    on_gpu: ClassVar[dict[str, Any]] = {
        "modes": ("eager", "captured"),
        "stem": "cifar",
        "batch_size": 256,
        "steps_per_run": 20,
        "precision": "bf16",
        "repeats": 5,
    }

    repeats: Annotated[int, Field(ge=2)] = 15
    """Timed runs of each candidate, after a warm-up run."""
    arch: Literal["resnet18", "resnet50"] = "resnet18"
    """Network."""
    stem: Literal["standard", "cifar"] = "standard"
    """Its stem."""
    image_size: Annotated[int, Field(ge=8)] = 32
    """Side of the views, in pixels."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per step."""
    steps_per_run: Annotated[int, Field(ge=1)] = 1
    """Steps per timed run; a GPU is synchronised at both ends."""
    precision: Precision = "fp32"
    """Autocast type of the forward passes."""
    modes: tuple[Mode, ...] = ("eager",)
    """Ways to run the steps and the bare passes."""


def measure(settings: StepSettings) -> Measurement:
    """Time steps of both methods and the bare passes in turn, in each mode."""
    device = settings.device
    with as_in_training(device):
        candidates: dict[str, Callable[[], object]] = {}
        for mode in settings.modes:
            for name in _METHODS:
                candidates[label(name, mode)] = prepared_steps(settings, name, mode)
            candidates[label(_BARE, mode)] = repeated_passes(settings, mode)
        seconds = alternate(candidates, settings.repeats, device)
        memory = peak_memory(
            {
                label(name, mode): partial(run_steps, settings, name, mode)
                for mode in settings.modes
                for name in _METHODS
            },
            settings,
        )
    speeds = rates(seconds, settings.batch_size * settings.steps_per_run)
    findings = [finding for mode in settings.modes for finding in _ratios(seconds, mode)]
    findings += goals(speeds, _GOALS.get((settings.arch, settings.image_size), {}), device)
    figures = [
        _uncertainty(seconds, label(_RSA, mode), label(baseline, mode))
        for mode in settings.modes
        for baseline in (_BYOL, _BARE)
    ]
    return Measurement(findings, seconds, figures + speeds + arithmetic(settings, speeds) + memory)


def _ratios(seconds: dict[str, list[float]], mode: Mode) -> list[Finding]:
    rsa, byol, bare = (label(name, mode) for name in (_RSA, _BYOL, _BARE))
    return [
        Finding(
            what=f"training step of {rsa}, over BYOL's (AA)",
            value=ratio(seconds, rsa, byol),
            unit="×",
            bound="at most",
            limit=1.02,
        ),
        Finding(
            what=f"training step of {rsa}, over its bare passes",
            value=ratio(seconds, rsa, bare),
            unit="×",
            bound="at most",
            limit=1.05,
        ),
    ]


def run_steps(settings: StepSettings, method: str, mode: Mode) -> None:
    """Train a new network for two runs; the second includes the optimizer's buffers."""
    steps = prepared_steps(settings, method, mode)
    steps()
    steps()


def arithmetic(settings: StepSettings, speeds: list[Figure]) -> list[Figure]:
    """Return the backbones' operations per second, which `card` gives a ceiling, on a GPU."""
    if settings.device == "cpu":
        return []
    backbone = BackboneConfig(arch=settings.arch, stem=settings.stem)
    teraflop = FORWARDS_PER_STEP * gflops_per_image(backbone, settings.image_size) / 1e3
    return [
        Figure(what=speed.what, value=speed.value * teraflop, unit="TFLOP/s") for speed in speeds
    ]


def prepared_steps(settings: StepSettings, method: str, mode: Mode) -> Callable[[], None]:
    """Return a function that repeats the trainer's steps on the same views."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(_config(settings, method, mode, Path(folder)))
    batches = repeat((_views(settings, _NUM_VIEWS[method]), None))

    def steps() -> None:
        for _ in range(settings.steps_per_run):
            trainer._train_step(batches)

    return steps


def repeated_passes(settings: StepSettings, mode: Mode) -> Callable[[], None]:
    """Return a function that runs RSA's networks on views, without loss, optimizer or EMA."""
    config = _config(settings, _RSA, mode, Path("unused"))
    passes = prepared_passes(config, mode, settings.device)

    def run() -> None:
        for _ in range(settings.steps_per_run):
            passes()

    return run


def _config(settings: StepSettings, method: str, mode: Mode, folder: Path) -> PretrainConfig:
    """Return a run that outlasts the benchmark."""
    tree: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "data": {"name": "digits", "image_size": settings.image_size, "num_workers": 0},
        "backbone": {"arch": settings.arch, "stem": settings.stem},
        "method": _METHODS[method],
        "optimizer": {"base_lr": 0.1, "weight_decay": 5e-4},
        "training": {
            "epochs": 1_000_000,
            "global_batch_size": settings.batch_size,
            "precision": settings.precision,
            "device": settings.device,
            **training_in(mode, settings.device),
        },
        "seed": settings.seed,
    }
    return parse_tree(PretrainConfig, tree, "benchmark")


def _trainer(config: PretrainConfig) -> Trainer:
    """Build a trainer; its images are never read."""
    pixels = np.zeros((config.training.global_batch_size, 1, 1, 3), np.uint8)
    images = ImageSet.from_array("black", pixels, [0] * len(pixels), ["black"])
    return Trainer(config, images, resume=False)


def _views(settings: StepSettings, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(settings.seed)
    shape = (settings.batch_size, 3, settings.image_size, settings.image_size)
    return [
        torch.randn(shape, generator=generator).to(
            settings.device, memory_format=torch.channels_last
        )
        for _ in range(count)
    ]


def _uncertainty(seconds: dict[str, list[float]], candidate: str, baseline: str) -> Figure:
    turns = [time / base for time, base in zip(seconds[candidate], seconds[baseline], strict=True)]
    return Figure(
        what=f"{candidate} over {baseline}: standard error of the mean of the turns' ratios",
        value=statistics.stdev(turns) / len(turns) ** 0.5,
        unit="×",
    )


BENCHMARK = Benchmark(
    settings=StepSettings,
    measure=measure,
    summary="A training step of RSA compared with BYOL's, and with its networks' bare passes.",
)
