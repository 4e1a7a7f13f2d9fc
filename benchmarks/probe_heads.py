"""Compare thirteen heads in one pass with a single head, and with thirteen trained in turn."""

from typing import Annotated, Any

import torch
from pydantic import Field

from benchmarks.measure import Benchmark, Finding, Measurement, alternate, ratio
from benchmarks.probe_task import ProbeTask, ProbeTaskSettings, probe_task
from rsa_eval.evaluators.linear.heads import HeadTrainer, new_heads
from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, ProbeConfig

_RATES = LINEAR_PROTOCOLS["dinov2"].base_lr
_WIDTH, _CLASSES = 512, 10


class ProbeHeadsSettings(ProbeTaskSettings):
    """Two epochs of DINOv2's probe."""

    repeats: Annotated[int, Field(ge=1)] = 3
    """Timed runs of each candidate, after a warm-up run."""
    epochs: Annotated[int, Field(ge=1)] = 2
    """Passes over the training images."""
    num_steps: Annotated[int, Field(ge=1)] = 50
    """Steps on precomputed features, without a backbone."""


def measure(settings: ProbeHeadsSettings) -> Measurement:
    """Time whole evaluations in both modes, and the steps alone."""
    one, many = "one head", f"{len(_RATES)} heads"
    seconds = _time_steps(settings)
    findings = [
        Finding(
            what=f"steps of {many} at once over the heads one after another, features ready",
            value=ratio(seconds, "steps at once", "steps in turn"),
            unit="×",
            bound="at most",
            limit=0.5,
        )
    ]
    with probe_task(settings) as task:
        for mode in ("online", "cached"):
            seconds |= _time_evaluations(
                task, settings, mode, (f"{mode}, {one}", f"{mode}, {many}")
            )
            findings.append(
                Finding(
                    what=f"evaluation with {many} over {one}, {mode}",
                    value=ratio(seconds, f"{mode}, {many}", f"{mode}, {one}"),
                    unit="×",
                    bound="at most",
                    limit=2,
                )
            )
    return Measurement(findings, seconds)


def _time_evaluations(
    task: ProbeTask, settings: ProbeHeadsSettings, mode: str, names: tuple[str, str]
) -> dict[str, list[float]]:
    probe: dict[str, Any] = {"mode": mode, "epochs": settings.epochs, "batch_size": 256}
    single = task.config(probe | {"base_lr": _RATES[-1]}, "dinov2")
    parallel = task.config(probe, "dinov2")
    candidates = {
        names[0]: lambda: task.evaluate(single),
        names[1]: lambda: task.evaluate(parallel),
    }
    return alternate(candidates, settings.repeats, settings.device)


def _time_steps(settings: ProbeHeadsSettings) -> dict[str, list[float]]:
    device = torch.device(settings.device)
    generator = torch.Generator().manual_seed(settings.seed)
    features = torch.randn(256, _WIDTH, generator=generator).to(device)
    labels = torch.randint(_CLASSES, (256,), generator=generator).to(device)

    def steps(rates: tuple[float, ...]) -> None:
        probe = ProbeConfig(base_lr=rates)
        trainer = HeadTrainer(new_heads(_WIDTH, _CLASSES, probe, 0, device), probe)
        for _ in range(settings.num_steps):
            trainer.step(features, labels, len(labels), 1.0)

    candidates = {
        "steps at once": lambda: steps(_RATES),
        "steps in turn": lambda: [steps((rate,)) for rate in _RATES],
    }
    return alternate(candidates, settings.repeats, settings.device)


BENCHMARK = Benchmark(
    settings=ProbeHeadsSettings,
    measure=measure,
    summary="A linear probe with 13 parallel heads compared with a single head.",
)
