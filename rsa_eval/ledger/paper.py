"""The paper's tables, a line per number: published, ours, what it took and what makes it."""

from collections.abc import Sequence

from rsa_eval.ledger.cost import Cost
from rsa_eval.ledger.markdown import LINE_BREAK, NOT_YET, NOTHING, footnotes, marks, table
from rsa_eval.ledger.measured import Measured, batch_of, cells_by_row, command_of, key
from rsa_eval.published_numbers import DETECTION_METRICS
from rsa_eval.report.escaping import escape_markdown
from rsa_eval.report.groups import Group, engine_of
from rsa_eval.report.paper import CAPTIONS, groups_of
from rsa_eval.report.tables import data_set_name

_Found = Sequence[tuple[Group, tuple[int, ...]]]
_DETECTION = (5, 6)
_COSTS = ("hours", "hardware", "command")


def paper_table(number: int, measured: Measured) -> str:
    """Draw a table of the paper, of accuracies or of average precisions."""
    draw = _detection_table if number in _DETECTION else _linear_table
    notes: list[str] = []
    parts = [f"### Table {number}", CAPTIONS[number], draw(number, measured, notes)]
    if notes:
        parts += [
            "Departures from the paper:",
            footnotes([escape_markdown(text) for text in notes]),
        ]
    return "\n\n".join(parts)


def _linear_table(number: int, measured: Measured, notes: list[str]) -> str:
    columns = ("row", "data set", "epochs", "batch", "published", "ours", *_COSTS)
    cells = cells_by_row(number)
    lines = []
    for row in measured.rows_of(number):
        cell = cells.get(key(row))
        found = groups_of(cell, measured.groups, notes) if cell else []
        texts = [_accuracy(group, numbers) for group, numbers in found]
        lines.append(
            [
                measured.name(row),
                data_set_name(row.data_set),
                str(row.epochs),
                batch_of(row),
                row.published or "",
                _ours(row.work is not None, texts),
                *_costs(found, measured),
                command_of(row, [group for group, _ in found]),
            ]
        )
    return table(columns, lines, ("epochs", "published"))


def _detection_table(number: int, measured: Measured, notes: list[str]) -> str:
    columns = ("row", "box AP, AP50, AP75", "ours", "mask AP, AP50, AP75", "ours", *_COSTS)
    cells = cells_by_row(number)
    lines = []
    for row in measured.rows_of(number):
        cell = cells[key(row)]
        found = groups_of(cell, measured.groups, notes)
        line = [measured.name(row)]
        for metrics in (DETECTION_METRICS[:3], DETECTION_METRICS[3:]):
            texts = [_precisions(group, metrics, numbers) for group, numbers in found]
            published = ", ".join(cell.scores[metric].text for metric in metrics)
            line += [published, _ours(row.work is not None, texts)]
        lines.append(
            [*line, *_costs(found, measured), command_of(row, [group for group, _ in found])]
        )
    return table(columns, lines, ())


def _accuracy(group: Group, numbers: Sequence[int]) -> str:
    found = group.headline
    return "" if found is None else f"**{found.text}**{marks(numbers)} ({found.trials})"


def _precisions(group: Group, metrics: Sequence[str], numbers: Sequence[int]) -> str:
    found = [group.statistic(metric) for metric in metrics]
    texts = ", ".join(NOTHING if one is None else one.text for one in found)
    engine = engine_of(group.first)
    return f"**{texts}**{marks(numbers)}" + (f" ({escape_markdown(engine)})" if engine else "")


def _ours(is_here: bool, texts: Sequence[str]) -> str:
    return LINE_BREAK.join(texts) or (NOT_YET if is_here else NOTHING)


def _costs(found: _Found, measured: Measured) -> list[str]:
    costs = [Cost.of([group], measured.timings) for group, _ in found]
    return [
        LINE_BREAK.join(cost.hours for cost in costs) or NOTHING,
        LINE_BREAK.join(cost.hardware for cost in costs) or NOTHING,
    ]
