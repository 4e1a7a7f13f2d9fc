"""Say of each table whether pretraining taught its models anything.

Adapted BatchNorm statistics alone change an accuracy, so a model has learned something if it is
above random weights and above every control, a run whose weights stayed random.
"""

from rsa_eval.audit.row_kinds import is_control
from rsa_eval.report.matrix import PairMatrix
from rsa_eval.report.tables import Table, TableRow


def describe_learning(table: Table, matrix: PairMatrix | None) -> str:
    """Return sentences that sort the trained models of a table by what is shown.

    First come those whose intervals lie apart, over images and, with several seeds, over seeds;
    then those whose difference the matrix of all pairs marks nevertheless.

    Returns:
        Empty without random weights and a control of a model's network, or if they are not
        compared.
    """
    if matrix is None or not matrix.rows:
        return ""
    rows = [row for row in table.rows if row.headline is not None and row.headline.unit == "%"]
    references = [number for number, row in enumerate(rows) if _is_reference(row)]
    apart: list[str] = []
    shown: list[str] = []
    unshown: list[str] = []
    for number, row in enumerate(rows):
        own = [other for other in references if _network(rows[other]) == _network(row)]
        if number in references or {rows[other].group.is_baseline for other in own} != {
            True,
            False,
        }:
            continue
        cells = [matrix.rows[number].cells[other] for other in own]
        if all(_are_apart(row, rows[other]) for other in own):
            apart.append(_name(row))
        elif all(cell is not None and cell.decision == "better" for cell in cells):
            shown.append(_name(row))
        else:
            unshown.append(_name(row))
    parts = (
        ("Above random weights and the control, and their 95 % intervals apart", apart),
        ("Above both, though intervals overlap", shown),
        ("Not shown to be above both", unshown),
    )
    sentences = [f"{title}: {', '.join(names)}." for title, names in parts if names]
    singles = [row.headline for row in rows if row.headline and len(row.headline.values) == 1]
    if sentences and len(singles) < len(rows) and singles:
        sentences.append("A single seed is judged over the test images alone.")
    return " ".join(sentences)


def _is_reference(row: TableRow) -> bool:
    """Return whether a model is random weights or a control."""
    return row.group.is_baseline or is_control(row.group.first)


def _network(row: TableRow) -> str:
    return row.group.first.model.network


def _are_apart(row: TableRow, other: TableRow) -> bool:
    """Return whether the intervals over images do not overlap, and over seeds where both have."""
    ours, theirs = row.headline, other.headline
    assert ours is not None
    assert theirs is not None
    pairs = [(ours.over_images, theirs.over_images), (ours.over_seeds, theirs.over_seeds)]
    known = [(own, its) for own, its in pairs if own is not None and its is not None]
    return bool(known) and all(own.low > its.high for own, its in known)


def _name(row: TableRow) -> str:
    assert row.headline is not None
    return f"{row.name} ({row.headline.text})"
