"""Table 7: how long training takes, and each method's time relative to BYOL's."""

import statistics
from collections.abc import Sequence

from rsa_eval.ledger.markdown import NOT_YET, NOTHING, table
from rsa_eval.ledger.measured import Measured, command_of
from rsa_eval.published import METHOD_OF_LABEL
from rsa_eval.report.escaping import escape_markdown
from rsa_eval.report.tables import data_set_name
from rsa_eval.report.timing import Timing, published_ratio
from rsa_eval.reproduction.rows import Row

_CAPTION = """\
Training time: 800 epochs on one V100, of ImageNet-100 200 epochs on four. × BYOL is relative to
BYOL, ours on the same machine with the same settings, by the log of the row's own run."""


def timing_table(measured: Measured) -> str:
    """Draw Table 7."""
    columns = ("row", "data set", "epochs", "published", "× BYOL", "ours", "ours, × BYOL")
    rows = [_line(row, measured) for row in measured.rows_of(7)]
    numeric = ("epochs", "published", "× BYOL")
    drawn = table((*columns, "hardware", "command"), rows, numeric)
    return "\n\n".join(["### Table 7", _CAPTION, drawn])


def relative_to_byol(timings: Sequence[Timing]) -> str | None:
    """Return the mean ratio of some runs, with its deviation; None if no run has one."""
    ratios = [timing.relative for timing in timings if timing.relative is not None]
    if not ratios:
        return None
    spread = f" ± {statistics.stdev(ratios):.2f}" if len(ratios) > 1 else ""
    return f"{statistics.fmean(ratios):.2f}{spread}"


def _line(row: Row, measured: Measured) -> list[str]:
    timings = measured.timings_of(row)
    ratio = published_ratio(METHOD_OF_LABEL[row.label], row.data_set)
    hours = [f"{timing.hours:.2f} h for {timing.epochs:g} epochs" for timing in timings]
    machines = dict.fromkeys(timing.machine for timing in timings if timing.machine)
    return [
        measured.name(row),
        data_set_name(row.data_set),
        str(row.epochs),
        row.published or NOTHING,
        NOTHING if ratio is None else f"{ratio:.2f}",
        "; ".join(hours) or NOT_YET,
        relative_to_byol(timings) or NOT_YET,
        "; ".join(map(escape_markdown, machines)) or NOTHING,
        command_of(row),
    ]
