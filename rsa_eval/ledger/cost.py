"""What numbers took: hours of training and of evaluation, and the machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rsa_eval.ledger.markdown import NOTHING
from rsa_eval.report.escaping import escape_markdown
from rsa_eval.report.groups import Group
from rsa_eval.report.timing import Timing


@dataclass(frozen=True)
class Cost:
    """Of one trial, the mean over all."""

    training_hours: float | None
    """None where nothing was trained, or a log does not lie beside the records."""
    evaluation_hours: float
    machines: tuple[str, ...]
    """Of training, then of evaluation."""

    @classmethod
    def of(cls, groups: Sequence[Group], timings: Mapping[Path, Timing]) -> Self:
        """Sum up the evaluations of some runs and the runs themselves.

        Args:
            groups: The evaluations of one model.
            timings: By run folder.
        """
        found = [
            (path.parent.parent, record)
            for group in groups
            for path, record in zip(group.paths, group.records, strict=True)
        ]
        folders = list(dict.fromkeys(folder for folder, _ in found))
        timed = [timings[folder] for folder in folders if folder in timings]
        whole = len(timed) == len(folders)
        machines = [timing.machine for timing in timed if timing.machine]
        machines += [record.hardware for _, record in found]
        return cls(
            training_hours=sum(t.hours for t in timed) / len(timed) if whole else None,
            evaluation_hours=sum(record.seconds for _, record in found) / 3600 / len(folders),
            machines=tuple(dict.fromkeys(machines)),
        )

    @property
    def hours(self) -> str:
        """Training + evaluation."""
        training = NOTHING if self.training_hours is None else f"{self.training_hours:.2f}"
        return f"{training} + {self.evaluation_hours:.2f}"

    @property
    def hardware(self) -> str:
        """The machines, in Markdown."""
        return "; ".join(escape_markdown(machine) for machine in self.machines)
