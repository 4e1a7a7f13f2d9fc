"""Represent what an audit finds: an obstacle to a comparison, its severity and its remedy."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["unfair", "caution", "note"]
SEVERITIES: tuple[Severity, ...] = ("unfair", "caution", "note")
"""Most severe first."""


@dataclass(frozen=True)
class Side:
    """Records that agree with each other and differ from the others."""

    value: str
    """Their common value."""
    records: tuple[str, ...]
    """Their names."""


@dataclass(frozen=True)
class Finding:
    """One obstacle to a comparison."""

    severity: Severity
    """unfair: the numbers must not be compared; caution: they may differ for this reason; note:
    good to know."""
    topic: str
    """Short name of the property."""
    statement: str
    """One sentence that names the records."""
    remedy: str
    """Advice: how to remove the obstacle."""
    sides: tuple[Side, ...] = ()
    """All records by value; empty if the finding is no difference."""


@dataclass(frozen=True)
class FindingGroup:
    """The findings about one set of records or images."""

    title: str
    records: tuple[str, ...]
    """Names of the records compared."""
    findings: tuple[Finding, ...]
    """Most severe first."""

    @classmethod
    def of(cls, title: str, records: list[str], findings: list[Finding]) -> "FindingGroup":
        """Sort the findings by severity, otherwise in the given order."""
        ordered = sorted(findings, key=lambda found: SEVERITIES.index(found.severity))
        return cls(title, tuple(records), tuple(ordered))


def num_findings(groups: list[FindingGroup], severity: Severity) -> int:
    """Count the findings of a severity."""
    return sum(found.severity == severity for group in groups for found in group.findings)
