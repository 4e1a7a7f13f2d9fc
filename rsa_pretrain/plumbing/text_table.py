"""Render rows of cells as aligned text, Markdown or CSV."""

import csv
import io
import unicodedata
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Literal

TableFormat = Literal["text", "markdown", "csv"]
NOTHING = "–"
"""Text of an empty cell."""

_MARKUP = "\\`*_[]|~$"


class Markdown(str):
    """Text that is already Markdown: a table does not escape it."""


def render_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    table_format: TableFormat = "text",
    numeric: Collection[str] = (),
) -> str:
    """Render a table, without a final line break.

    Args:
        columns: Headings.
        rows: Cells, as many as columns; None is a dash, in CSV an empty cell. In Markdown, text
            is escaped unless it is ``Markdown``.
        table_format: Numbers are aligned to the right in text and Markdown.
        numeric: Headings of columns to align to the right although their cells are text.

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
    """Escape text so that it neither leaves its table cell nor becomes markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in _MARKUP:
        escaped = escaped.replace(character, f"\\{character}")
    # Keep renderers from turning an address into a link.
    return one_line(escaped).replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def one_line(text: str) -> str:
    """Make one line of printable characters."""
    spaced = " ".join(text.split())
    return "".join(character for character in spaced if unicodedata.category(character)[0] != "C")


def _markdown(cell: object) -> str:
    if cell is None:
        return NOTHING
    return cell if isinstance(cell, Markdown) else escape_markdown(str(cell))
