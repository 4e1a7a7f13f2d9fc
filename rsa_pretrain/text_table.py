"""Rows of cells as aligned text, Markdown or CSV."""

import csv
import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

TableFormat = Literal["text", "markdown", "csv"]
_NOTHING = "–"


def render_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    table_format: TableFormat = "text",
) -> str:
    """Lay out a table, without a line break at its end.

    Args:
        columns: Headings.
        rows: Cells, as many as columns; None is a dash, in CSV an empty cell.
        table_format: Numbers are aligned to the right in text and Markdown.

    Returns:
        The table's lines.
    """
    if table_format == "csv":
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        return file.getvalue().rstrip("\n")
    cells = [[_NOTHING if cell is None else str(cell) for cell in row] for row in rows]
    numeric = [
        all(isinstance(row[column], int | float | Decimal | None) for row in rows)
        for column in range(len(columns))
    ]
    if table_format == "markdown":
        rule = ["--:" if right else "---" for right in numeric]
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        return "\n".join(f"| {' | '.join(row)} |" for row in [columns, rule, *escaped])
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = []
    for row in [columns, *cells]:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
