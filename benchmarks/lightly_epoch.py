"""Compare a whole epoch of BYOL, and of RSA, with one of lightly's BYOL example."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from pydantic import Field

from benchmarks.images import small_images
from benchmarks.measure import Benchmark, Finding, Measurement, peak_memory, rates, ratio
from benchmarks.training import BYOL, RSA, TrainingSettings, alternate_epochs, trainer_epoch
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.errors import UserError

_FP32, _BF16, _RSA = "BYOL", "BYOL in bf16", "RSA"
_LIMITS = {"cpu": 1.5, "cuda": 3.0}


class LightlySettings(TrainingSettings):
    """Network and batch shared by all candidates."""

    lightly_workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes of lightly's epoch; its example has 8, regardless of the cores. The other
    candidates make their views on the device and need none."""


def measure(settings: LightlySettings) -> Measurement:
    """Time epochs of the same network, batch and images.

    Raises:
        UserError: If lightly is not installed.
    """
    try:
        rival = f"BYOL of lightly {version('lightly')}"
    except PackageNotFoundError:
        raise UserError("this benchmark needs lightly; install rsa-toolkit[dev]") from None
    images = small_images(settings.num_images, settings.seed)
    candidates = {rival: partial(_lightly_epoch, settings, images)}
    candidates |= _our_candidates(settings, images)
    seconds = alternate_epochs(candidates, settings.repeats)
    findings = [
        Finding(
            what=f"epoch of lightly's BYOL in fp32 over that of {name}, {images.name}",
            value=ratio(seconds, rival, name),
            unit="×",
            bound="at least",
            limit=_LIMITS[settings.device],
        )
        for name in (_FP32, _BF16)
    ]
    few = images.random_subset(min(len(images), 2 * settings.batch_size), settings.seed)
    memory = {rival: partial(_lightly_epoch, settings, few)} | _our_candidates(settings, few)
    trained = settings.num_images // settings.batch_size * settings.batch_size
    figures = rates(seconds, trained) + peak_memory(memory, settings)
    return Measurement(findings, seconds, figures)


def _our_candidates(settings: LightlySettings, images: ImageSet) -> dict[str, Callable[[], float]]:
    return {
        _FP32: partial(trainer_epoch, settings, BYOL, "fp32", images),
        _BF16: partial(trainer_epoch, settings, BYOL, "bf16", images),
        _RSA: partial(trainer_epoch, settings, RSA, "fp32", images),
    }


def _lightly_epoch(settings: LightlySettings, images: ImageSet) -> float:
    # Imported here, so that other benchmarks need no lightly and other candidates do not load it.
    from benchmarks.lightly_byol import lightly_epoch

    return lightly_epoch(settings, settings.lightly_workers, images)


BENCHMARK = Benchmark(
    settings=LightlySettings,
    measure=measure,
    summary="A training epoch compared with one of lightly's BYOL example on the same images.",
)
