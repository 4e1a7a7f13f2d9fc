"""Measure what damaged files of every kind do to their readers: one error, or the right answer."""

from typing import Annotated, Literal

from pydantic import Field

from benchmarks.faults.damage.outcomes import damage_outcomes
from benchmarks.faults.damage.trials import FINDINGS, OTHER, REFUSED, SAME, Outcomes
from benchmarks.measure import Benchmark, BenchmarkSettings, Figure, Finding, Measurement
from rsa_pretrain.plumbing.command_line import say


class DamageSettings(BenchmarkSettings):
    """Number and kinds of the damaged files; a GPU is not needed."""

    device: Literal["cpu"] = "cpu"
    """Device to run on."""
    repeats: Literal[1] = 1
    """Not used: each file is read once."""
    mutants: Annotated[int, Field(ge=1)] = 450
    """Damaged files of each kind."""
    only: str = ""
    """Kinds whose name contains this."""


def measure(settings: DamageSettings) -> Measurement:
    """Read the damaged files and count what becomes of them."""
    found = []
    for outcomes in damage_outcomes(settings.mutants, settings.seed, settings.only):
        for finding in outcomes.findings:
            say(f"finding: {' '.join(finding.split())}")
        say(_describe(outcomes))
        found.append(outcomes)
    totals = {
        name: sum(outcomes.counts[name] for outcomes in found)
        for name in (*FINDINGS, REFUSED, SAME, OTHER)
    }
    findings = [
        Finding(what=f"mutants with {name}", value=totals[name], unit="", bound="at most", limit=0)
        for name in FINDINGS
    ]
    figures = [
        Figure(what="kinds of files", value=len(found), unit=""),
        Figure(what="mutants", value=sum(outcomes.num_mutants for outcomes in found), unit=""),
        *(Figure(what=name, value=totals[name], unit="") for name in (REFUSED, SAME, OTHER)),
        Figure(
            what="largest memory that a reader added",
            value=max((outcomes.peak_mib for outcomes in found), default=0.0),
            unit="MiB",
        ),
    ]
    return Measurement(
        findings,
        {outcomes.kind: [outcomes.seconds] for outcomes in found},
        figures,
        {outcomes.kind: _describe(outcomes) for outcomes in found},
    )


def _describe(outcomes: Outcomes) -> str:
    counts = ", ".join(f"{outcomes.counts[name]} {name}" for name in (REFUSED, SAME, OTHER))
    return f"{outcomes.kind}: {outcomes.num_mutants} mutants, {counts}, {outcomes.peak_mib:.0f} MiB"


BENCHMARK = Benchmark(
    settings=DamageSettings,
    measure=measure,
    summary="Damaged files of every kind that is read back: one error, or the right answer.",
)
