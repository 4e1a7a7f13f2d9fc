"""Compare the probe on cached features with the probe that runs the backbone every epoch."""

from functools import partial
from typing import Annotated, Any

from pydantic import Field

from benchmarks.measure import Benchmark, Finding, Measurement, alternate, ratio
from benchmarks.probe_task import ProbeTask, ProbeTaskSettings, probe_task
from rsa_eval.records.record import Result

_NO_AUGMENTATION = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip_probability": 0.0}


class ProbeModesSettings(ProbeTaskSettings):
    """Mean Shift's probe for as long as SimSiam's."""

    repeats: Annotated[int, Field(ge=1)] = 1
    """Timed runs of each candidate, after a warm-up run."""
    epochs: Annotated[int, Field(ge=1)] = 90
    """Passes over the training images."""


def measure(settings: ProbeModesSettings) -> Measurement:
    """Time both modes without augmentation, where they should reach the same accuracy."""
    results: dict[str, Result] = {}

    def evaluate(task: ProbeTask, mode: str) -> None:
        probe: dict[str, Any] = {"mode": mode, "epochs": settings.epochs, "milestones": []}
        probe |= _NO_AUGMENTATION
        results[mode] = task.evaluate(task.config(probe, "mean_shift"))

    with probe_task(settings) as task:
        candidates = {mode: partial(evaluate, task, mode) for mode in ("online", "cached")}
        seconds = alternate(candidates, settings.repeats, settings.device)
    top1 = {mode: result.metrics["top1"].value for mode, result in results.items()}
    return Measurement(
        [
            Finding(
                what=f"online evaluation over cached, {settings.epochs} epochs",
                value=ratio(seconds, "online", "cached"),
                unit="×",
                bound="at least",
                limit=20,
            ),
            Finding(
                what="difference in top-1 without augmentation "
                f"(online {top1['online']:.2f}, cached {top1['cached']:.2f})",
                value=abs(top1["online"] - top1["cached"]),
                unit="points",
                bound="at most",
                limit=1,
            ),
        ],
        seconds,
    )


BENCHMARK = Benchmark(
    settings=ProbeModesSettings,
    measure=measure,
    summary="The linear probe on cached features compared with one that augments every epoch.",
)
