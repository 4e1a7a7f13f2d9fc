"""Tables and footnotes in Markdown, of cells that are Markdown already."""

from collections.abc import Sequence
from itertools import compress

NOTHING = "–"
NOT_YET = "not yet measured"
LINE_BREAK = "<br>"
"""Between several entries of one cell."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[str]) -> str:
    """Lay out a table, without the columns that are dashes all the way down.

    Args:
        columns: Headings.
        rows: Cells, as many as columns.
        numeric: Headings of the columns that are aligned to the right.
    """
    rule = ["--:" if column in numeric else "---" for column in columns]
    shown = [
        not rows or any(cells[place] != NOTHING for cells in rows) for place in range(len(columns))
    ]
    lines = [compress(cells, shown) for cells in [columns, rule, *rows]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def footnotes(texts: Sequence[str]) -> str:
    """List footnotes under their numbers."""
    return "\n".join(f"- [{number}] {text}" for number, text in enumerate(texts, start=1))


def marks(numbers: Sequence[int]) -> str:
    """Point at footnotes, with a space in front."""
    return "".join(f" [{number}]" for number in numbers)


def link(text: str, target: str) -> str:
    """Link to a file of the repository."""
    return f"[{text}]({target})"


def code(words: str) -> str:
    """Set words that can be copied and run."""
    return f"`{words}`"
