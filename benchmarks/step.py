"""Compare a training step of RSA with BYOL's and with its bare passes, on views in memory.

RSA and BYOL (AA) need the same passes: two forward and backward through the online network, two
forward through the target. RSA's loss has two more terms.

CUDA graphs are not used. A captured step would need learning rate, EMA momentum and beta, which are
plain numbers that change every step, as tensors on the device, and the views at fixed addresses.
Capturing only the networks (``torch.compile(mode="reduce-overhead")``) keeps their outputs and
gradients in memory that the next replay overwrites, while a step calls each network twice and may
accumulate over passes. Neither can be verified without a GPU.
"""

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from benchmarks.epoch import bare_passes
from benchmarks.gpu_peaks import matrix_peak
from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    Finding,
    Measurement,
    alternate,
    peak_memory,
    rates,
    ratio,
)
from benchmarks.training import BYOL, OUTPUT_DIM, RSA
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
# Two forward and backward (a backward costs two forwards), and two forward.
_FORWARDS_PER_STEP = 2 * 3 + 2


class StepSettings(BenchmarkSettings):
    """Network, images and precision of the step."""

    repeats: Annotated[int, Field(ge=2)] = 15
    """Timed steps of each candidate, after a warm-up step."""
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
    compile: bool = False
    """Compile the networks, also for the bare passes."""


def measure(settings: StepSettings) -> Measurement:
    """Time steps of both methods and the bare passes in turn."""
    candidates = {name: prepared_steps(settings, name) for name in _METHODS} | {
        _BARE: prepared_passes(settings),
    }
    seconds = alternate(candidates, settings.repeats, settings.device)
    findings = [
        Finding(
            what="training step of RSA over BYOL's (AA)",
            value=ratio(seconds, _RSA, _BYOL),
            unit="×",
            bound="at most",
            limit=1.02,
        ),
        Finding(
            what="training step of RSA over its bare passes",
            value=ratio(seconds, _RSA, _BARE),
            unit="×",
            bound="at most",
            limit=1.05,
        ),
    ]
    memory = {name: partial(run_steps, settings, name) for name in _METHODS}
    figures = [
        _uncertainty(seconds, _RSA, _BYOL),
        _uncertainty(seconds, _RSA, _BARE),
        *rates(seconds, settings.batch_size * settings.steps_per_run),
        *share_of_peak(settings, seconds[_RSA]),
        *peak_memory(memory, settings.device),
    ]
    return Measurement(findings, seconds, figures)


def run_steps(settings: StepSettings, method: str) -> None:
    """Train a new network for two runs; the second includes the optimizer's buffers."""
    steps = prepared_steps(settings, method)
    steps()
    steps()


def share_of_peak(settings: StepSettings, runs: list[float]) -> list[Figure]:
    """Return the backbone's operations per second as a share of the GPU's peak, if known."""
    if settings.device != "cuda":
        return []
    peak = matrix_peak(torch.cuda.get_device_name(), settings.precision)
    if peak is None:
        return []
    backbone = BackboneConfig(arch=settings.arch, stem=settings.stem)
    forward = settings.batch_size * gflops_per_image(backbone, settings.image_size) / 1e3
    teraflops = settings.steps_per_run * _FORWARDS_PER_STEP * forward / statistics.median(runs)
    return [Figure(what="RSA: share of the matrix peak", value=100 * teraflops / peak, unit="%")]


def prepared_steps(settings: StepSettings, method: str) -> Callable[[], None]:
    """Return a function that repeats the trainer's steps on the same views."""
    trainer = _trainer(settings, method)
    batches = repeat((_views(settings, _NUM_VIEWS[method]), torch.zeros(settings.batch_size)))

    def steps() -> None:
        for _ in range(settings.steps_per_run):
            trainer._train_step(batches)

    return steps


def prepared_passes(settings: StepSettings) -> Callable[[], None]:
    """Return a function that runs RSA's networks on views, without loss, optimizer or EMA."""
    method = _trainer(settings, _RSA).state.method
    views = _views(settings, _NUM_VIEWS[_RSA])
    gradient = torch.ones(settings.batch_size, OUTPUT_DIM, device=settings.device)

    def passes() -> None:
        for _ in range(settings.steps_per_run):
            bare_passes(method, views, gradient, settings.precision)

    return passes


def _trainer(settings: StepSettings, method: str) -> Trainer:
    """Build a trainer whose run outlasts the benchmark; its images are never read."""
    tree: dict[str, Any] = {
        "data": {"name": "digits", "image_size": settings.image_size, "num_workers": 0},
        "backbone": {"arch": settings.arch, "stem": settings.stem},
        "method": _METHODS[method],
        "optimizer": {"base_lr": 0.1, "weight_decay": 5e-4},
        "training": {
            "epochs": 1_000_000,
            "global_batch_size": settings.batch_size,
            "precision": settings.precision,
            "compile": settings.compile,
            "device": settings.device,
        },
        "seed": settings.seed,
    }
    pixels = np.zeros((settings.batch_size, 1, 1, 3), np.uint8)
    images = ImageSet.from_array("black", pixels, [0] * len(pixels), ["black"])
    with tempfile.TemporaryDirectory() as folder:
        tree["output_dir"] = str(Path(folder, "run"))
        return Trainer(parse_tree(PretrainConfig, tree, "benchmark"), images, resume=False)


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
