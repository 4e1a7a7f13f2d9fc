"""Compare whole epochs from stored images with bare forward and backward passes."""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchmarks.images import small_images
from benchmarks.measure import Benchmark, Finding, Measurement, goals, peak_memory, rates, ratio
from benchmarks.modes import Mode, as_in_training, label
from benchmarks.passes import prepared_passes
from benchmarks.training import (
    BYOL,
    RSA,
    TrainingSettings,
    alternate_epochs,
    timed_epoch,
    trainer_epoch,
    training_config,
)
from rsa_pretrain.plumbing.device_names import Precision

_RSA, _BYOL, _BARE = "RSA", "BYOL (AA)", "bare passes"
_METHODS = {_RSA: RSA, _BYOL: BYOL}
# Images per second on an H100 in bf16, 256 images of 32 pixels, ResNet-18 with the CIFAR stem.
_GOALS = {label(_RSA, "captured"): 16_000.0, label(_RSA, "compiled"): 21_000.0}


class EpochSettings(TrainingSettings):
    """RSA as the paper trains it on CIFAR-10, with the standard stem unless stated."""

    on_gpu: ClassVar[dict[str, Any]] = TrainingSettings.on_gpu | {
        "modes": ("eager", "captured"),
        "methods": (_RSA, _BYOL),
        "stem": "cifar",
        "precision": "bf16",
        "repeats": 1,
    }

    precision: Precision = "fp32"
    """Autocast type of the forward passes, in all candidates."""
    modes: tuple[Mode, ...] = ("eager",)
    """Ways to run the steps and the bare passes."""
    methods: tuple[Literal["RSA", "BYOL (AA)"], ...] = (_RSA,)
    """Methods to train; RSA among them."""


def measure(settings: EpochSettings) -> Measurement:
    """Time epochs of the trainer and the bare passes of equally many batches, in each mode."""
    images = small_images(settings.num_images, settings.seed)
    candidates = {}
    for mode in settings.modes:
        for name in settings.methods:
            candidates[label(name, mode)] = partial(
                trainer_epoch, settings, _METHODS[name], settings.precision, images, mode
            )
        candidates[label(_BARE, mode)] = partial(bare_epoch, settings, mode)
    seconds = alternate_epochs(candidates, settings.repeats)
    findings = [
        Finding(
            what=f"epoch of {label(_RSA, mode)}, over two forward+backward and two forward passes, "
            f"{images.name}",
            value=ratio(seconds, label(_RSA, mode), label(_BARE, mode)),
            unit="×",
            bound="at most",
            limit=1.05,
        )
        for mode in settings.modes
    ]
    speeds = rates(seconds, settings.num_images // settings.batch_size * settings.batch_size)
    few = images.random_subset(min(len(images), 2 * settings.batch_size), settings.seed)
    memory = {
        label(_RSA, mode): partial(trainer_epoch, settings, RSA, settings.precision, few, mode)
        for mode in settings.modes
    }
    findings += goals(speeds, _GOALS, settings.device)
    return Measurement(findings, seconds, speeds + peak_memory(memory, settings))


def bare_epoch(settings: EpochSettings, mode: Mode) -> float:
    """Return the seconds of the bare passes of an epoch's batches."""
    config = training_config(settings, RSA, settings.precision, Path("unused"), mode)
    with as_in_training(settings.device):
        passes = prepared_passes(config, mode, settings.device)

        def epoch() -> None:
            for _ in range(settings.num_images // settings.batch_size):
                passes()

        return timed_epoch(epoch, settings.device)


BENCHMARK = Benchmark(
    settings=EpochSettings,
    measure=measure,
    summary="A training epoch of RSA from stored images compared with its networks' bare passes.",
)
