"""Compare reproduced rows with the results that their recipes expect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsa_eval.paper.rows import ExpectedResult, PaperRow
from rsa_eval.records.mean_std import MeanStd
from rsa_eval.records.record import Record
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import render_table

_COLUMNS = ("row", "evaluation", "seeds", "found", "expected", "tolerance", "")


@dataclass(frozen=True)
class CheckedResult:
    """One expected headline beside the mean over the seeds."""

    row: str
    evaluation: str
    num_seeds: int
    found: float
    expected: ExpectedResult

    @property
    def is_outside(self) -> bool:
        """True if the difference is above the tolerance or not a number."""
        return not abs(self.found - self.expected.value) <= self.expected.tolerance

    @property
    def cells(self) -> list[object]:
        """Its row of the table."""
        numbers = (self.found, self.expected.value, self.expected.tolerance)
        verdict = "OUTSIDE" if self.is_outside else "as expected"
        texts = (f"{number:.2f}" for number in numbers)
        return [self.row, self.evaluation, self.num_seeds, *texts, verdict]


def check_expected(
    rows: Sequence[PaperRow], records: Mapping[tuple[str, str], Record]
) -> list[CheckedResult]:
    """Compare every expected headline with the mean found over the seeds.

    Args:
        rows: Rows, some of them with expected results.
        records: By the names of trial and evaluation, as in ``Outcome``.

    Raises:
        UserError: If a row expects a result of an evaluation that it does not make.
    """
    checked = []
    for row in rows:
        for name, expected in row.expected.items():
            found = [
                record.metrics[record.headline].value
                for (trial, evaluation), record in records.items()
                if evaluation == name and trial.rpartition("/")[0] == row.home
            ]
            if not found:
                raise UserError(f"{row.name} expects a result of '{name}', which it does not make")
            checked.append(
                CheckedResult(row.name, name, len(found), MeanStd.of(found).mean, expected)
            )
    return checked


def expected_table(checked: Sequence[CheckedResult]) -> str:
    """Format the comparison as a table."""
    numeric = ("found", "expected", "tolerance")
    return render_table(_COLUMNS, [each.cells for each in checked], numeric=numeric)
