"""Rows of cells as aligned text, Markdown or CSV."""

import csv
import io
import unicodedata
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Literal

TableFormat = Literal["text", "markdown", "csv"]
NOTHING = "–"
"""Stands in an empty cell."""

_MARKUP = "\\`*_[]|~$"


class Markdown(str):
    """Text that is Markdown already: a table takes it as it is, without escaping it."""


def render_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    table_format: TableFormat = "text",
    numeric: Collection[str] = (),
) -> str:
    """Lay out a table, without a line break at its end.

    Args:
        columns: Headings.
        rows: Cells, as many as columns; None is a dash, in CSV an empty cell. In Markdown, text
            is escaped unless it is ``Markdown``.
        table_format: Numbers are aligned to the right in text and Markdown.
        numeric: Headings of columns to align so although their cells are text.

    Returns:
        The table's lines.
    """
    if table_format == "csv":
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        return file.getvalue().rstrip("\n")
    aligned_right = [
        column in numeric
        or all(isinstance(row[place], int | float | Decimal | None) for row in rows)
        for place, column in enumerate(columns)
    ]
    if table_format == "markdown":
        rule = ["--:" if right else "---" for right in aligned_right]
        head, *body = [[_markdown(cell) for cell in row] for row in [columns, *rows]]
        return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
    cells = [[NOTHING if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = []
    for row in [columns, *cells]:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, aligned_right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Keep text from breaking out of a table cell or into markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in _MARKUP:
        escaped = escaped.replace(character, f"\\{character}")
    # No renderer shall make a link of an address.
    return one_line(escaped).replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def one_line(text: str) -> str:
    """Make one line of printable characters."""
    spaced = " ".join(text.split())
    return "".join(character for character in spaced if unicodedata.category(character)[0] != "C")


def _markdown(cell: object) -> str:
    if cell is None:
        return NOTHING
    return cell if isinstance(cell, Markdown) else escape_markdown(str(cell))
