"""Compare paired bootstrap replicates with a loop over resamples that draws image by image."""

import statistics
from typing import Annotated

import numpy as np
from pydantic import Field

from benchmarks.measure import Benchmark, BenchmarkSettings, Finding, Measurement, alternate
from rsa_eval.statistics.bootstrap import mean_replicates
from rsa_eval.statistics.intervals import FloatArray

_OURS, _LOOP = "mean_replicates", "loop over resamples"


class ResamplesBenchmarkSettings(BenchmarkSettings):
    """Size of the bootstrap; it runs on the CPU whatever the device."""

    num_images: Annotated[int, Field(ge=1)] = 50_000
    """Images on which two models are right or wrong."""
    num_resamples: Annotated[int, Field(ge=1)] = 10_000
    """Resamples of these images."""
    num_loop_resamples: Annotated[int, Field(ge=1)] = 200
    """Resamples of the loop; its time is scaled to num_resamples."""


def measure(settings: ResamplesBenchmarkSettings) -> Measurement:
    """Time the replicates of a difference between two accuracies on the same images."""
    values = _hits(settings.num_images, settings.seed)

    def ours() -> FloatArray:
        first, second = mean_replicates(values, settings.num_resamples, settings.seed).T
        return first - second

    def loop() -> FloatArray:
        rng = np.random.default_rng(settings.seed)
        replicates = np.empty(settings.num_loop_resamples)
        for place in range(len(replicates)):
            drawn = values[rng.integers(len(values), size=len(values))]
            replicates[place] = drawn[:, 0].mean() - drawn[:, 1].mean()
        return replicates

    seconds = alternate({_OURS: ours, _LOOP: loop}, settings.repeats, settings.device)
    median = statistics.median(seconds[_OURS])
    per_resample = statistics.median(seconds[_LOOP]) / settings.num_loop_resamples
    size = f"{settings.num_resamples:,} paired resamples of {settings.num_images:,} images"
    findings = [
        Finding(what=f"{size}: time", value=median, unit="s", bound="at most", limit=1),
        Finding(
            what="time over that of a loop that draws image by image, scaled to as many resamples",
            value=median / (per_resample * settings.num_resamples),
            unit="×",
            bound="at most",
            limit=0.1,
        ),
    ]
    return Measurement(findings, seconds)


def _hits(num_images: int, seed: int) -> FloatArray:
    """Draw which images two models of about 70 % get right, in percent, (N, 2)."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(num_images, 1)) + rng.normal(size=(num_images, 2))
    return 100.0 * (latent < [0.75, 0.8])


BENCHMARK = Benchmark(
    settings=ResamplesBenchmarkSettings,
    measure=measure,
    summary="Paired bootstrap replicates compared with a loop over resamples.",
)
