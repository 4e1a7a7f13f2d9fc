"""Compare the torchvision engine's Mask R-CNN with plain torchvision's, on equal weights.

Plain torchvision runs copies of the same trunk, pyramid and heads with its own surroundings:
anchors, matching, pooling, losses, suppression and mask pasting. It is measured twice: by default,
with 2 x 2 samples per RoIAlign bin, and with as many samples as a bin covers pixels of the map,
which is detectron2's arithmetic and this engine's.

On a CPU, process time over all threads is measured: on a shared machine, wall time varies by more
than the detectors differ.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detectors import DetectionSettings, build_engine, drawn_samples, plain_copy
from benchmarks.measure import Benchmark, Figure, Finding, Measurement, alternate, ratio
from detection.engines.torchvision.prediction import to_original
from detection.feeding.samples import TestSample
from rsa_pretrain.components.optim import fused_sgd

_ENGINE, _PLAIN, _AS_IT_COMES = "engine", "torchvision, same RoIAlign", "torchvision as it comes"
# Samples per side of a bin; 0 takes as many as it covers pixels of the map.
_SAMPLES = {_PLAIN: 0, _AS_IT_COMES: 2}
# Small enough to leave the weights unchanged, so that every step does equal work.
_LEARNING_RATE = 1e-8

Run = Callable[[], dict[str, Tensor]]


def measure(settings: DetectionSettings) -> Measurement:
    """Time detections and training steps of all three detectors in turn."""
    clock = time.process_time if settings.device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {}
    for task, prepare in _TASKS.items():
        runs = {f"{task}, {name}": run for name, run in prepare(settings).items()}
        seconds |= alternate(runs, settings.repeats, settings.device, clock)
    findings = [
        Finding(
            what=f"time of {task} over torchvision's with the same RoIAlign",
            value=ratio(seconds, f"{task}, {_ENGINE}", f"{task}, {_PLAIN}"),
            unit="×",
            bound="at most",
            limit=limit,
        )
        for task, limit in _LIMITS.items()
    ]
    figures = [
        Figure(
            what=f"time of {task} over that of torchvision as it comes",
            value=ratio(seconds, f"{task}, {_ENGINE}", f"{task}, {_AS_IT_COMES}"),
            unit="×",
        )
        for task in _LIMITS
    ]
    return Measurement(findings, seconds, figures)


def prepared_detections(settings: DetectionSettings) -> dict[str, Run]:
    """Return functions by detector name that detect an image's objects and paste their masks."""
    sample, _ = drawn_samples(settings)[0]
    size = (sample.image.shape[1], sample.image.shape[2])
    engine = build_engine(settings, sample.image).eval()

    @torch.no_grad()
    def ours() -> dict[str, Tensor]:
        (found,) = engine([TestSample(sample.image, 1, *size)])
        kept, masks = to_original(found, size, size)
        assert masks is not None, "the detector has a mask head"
        return {**kept, "masks": masks}

    @torch.no_grad()
    def theirs(plain: nn.Module) -> dict[str, Tensor]:
        found: dict[str, Tensor]
        (found,) = plain([(sample.image / 255).to(settings.device)])
        return found

    return {_ENGINE: ours} | {
        name: partial(theirs, plain_copy(settings, engine, num_samples).eval())
        for name, num_samples in _SAMPLES.items()
    }


def prepared_steps(settings: DetectionSettings) -> dict[str, Run]:
    """Return functions by detector name that repeat training steps on the same images."""
    samples, targets = zip(*drawn_samples(settings), strict=True)
    engine = build_engine(settings, samples[0].image).train()

    def theirs(plain: nn.Module) -> dict[str, Tensor]:
        images = [(sample.image / 255).to(settings.device) for sample in samples]
        losses: dict[str, Tensor] = plain(images, targets)
        return losses

    runs = {_ENGINE: _steps(engine, lambda: engine(samples), settings.seed)}
    for name, num_samples in _SAMPLES.items():
        plain = plain_copy(settings, engine, num_samples).train()
        runs[name] = _steps(plain, partial(theirs, plain), settings.seed)
    return runs


def _steps(detector: nn.Module, losses: Run, seed: int) -> Run:
    groups = [{"params": list(detector.parameters()), "weight_decay": 0.0}]
    optimizer = fused_sgd(groups, lr=_LEARNING_RATE, momentum=0.9)

    def step() -> dict[str, Tensor]:
        torch.manual_seed(seed)
        found = losses()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(found.values())).sum().backward()
        optimizer.step()
        return found

    return step


_TASKS = {"detection": prepared_detections, "training step": prepared_steps}
_LIMITS = {"detection": 1.05, "training step": 1.02}

BENCHMARK = Benchmark(
    settings=DetectionSettings,
    measure=measure,
    summary="Our torchvision detection engine compared with torchvision's own Mask R-CNN.",
)
