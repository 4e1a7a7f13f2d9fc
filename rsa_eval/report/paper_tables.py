"""Build the paper's tables as printed, with our numbers beside the published ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from rsa_eval.paper.detection_recipes import rsa_recipe
from rsa_eval.paper.matching import belongs, departures
from rsa_eval.paper.numbers import DETECTION_METRICS
from rsa_eval.paper.published import Published, Score, paper_cells
from rsa_eval.paper.rows import work_of
from rsa_eval.records.detection_recipe import recipe_of
from rsa_eval.records.groups import Group, Statistic

_CAPTIONS = {
    1: "Views and the decay of β: linear top-1 after 200 epochs, ImageNet-100 after 100 (%)",
    2: "Small and medium data sets: linear top-1, ResNet-18 (%)",
    3: "ImageNet-100: linear top-1, ResNet-50 (%)",
    4: "ImageNet-1K: linear top-1, ResNet-50 (%)",
    5: "COCO, Mask R-CNN R50-FPN, 1× schedule: average precision (%)",
    6: "COCO, Mask R-CNN R50-FPN, 2× schedule: average precision (%); as printed, rows of two "
    "recipes: RSA at rate 0.03, its baselines, which are InfoMin’s, at 0.02",
    8: "RSA on SimSiam: linear top-1 after 200 epochs (%)",
}
_DETECTION = (5, 6)
_LABELS = {
    1: ("Method", "Aug.", "β"),
    3: ("Method", "Batch size"),
    4: ("Method", "Neg. pairs", "Batch size", "Epochs"),
}
_DETECTION_COLUMNS = {
    metric: (
        "Object detection" if metric.startswith("bbox") else "Instance segmentation",
        metric.partition("_")[2],
    )
    for metric in DETECTION_METRICS
}


@dataclass(frozen=True)
class MeasuredNumber:
    """One of our numbers in a cell."""

    statistic: Statistic
    group: Group
    marks: tuple[int, ...]
    """Footnote numbers."""


@dataclass(frozen=True)
class FilledCell:
    """One cell of one of the paper's tables."""

    published: Score
    metric: str
    ours: tuple[MeasuredNumber, ...]
    """Our numbers, those with the fewest departures first; empty if no record belongs here."""
    is_quoted: bool
    """True if the method is not implemented here, so that we can have no number."""
    recipe: str
    """Fingerprint of the detectors' recipe; empty for other evaluations."""


@dataclass(frozen=True)
class FilledRow:
    """One row."""

    labels: tuple[str, ...]
    cells: tuple[FilledCell | None, ...]
    """By column; None for an empty cell."""


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    number: int
    caption: str
    label_heads: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    """Each column's headings, outermost first."""
    rows: tuple[FilledRow, ...]
    footnotes: tuple[str, ...]
    """Departures from the paper."""

    @property
    def num_ours(self) -> int:
        """Number of cells with our own results."""
        return sum(bool(cell and cell.ours) for row in self.rows for cell in row.cells)

    @property
    def num_cells(self) -> int:
        """Number of cells with a published number."""
        return sum(cell is not None for row in self.rows for cell in row.cells)

    @property
    def num_quoted(self) -> int:
        """Number of cells of methods not implemented here."""
        return sum(bool(cell and cell.is_quoted) for row in self.rows for cell in row.cells)

    @property
    def column_groups(self) -> list[tuple[str, int]]:
        """Outer headings with the number of columns below each; empty if there are none."""
        groups: list[tuple[str, int]] = []
        for column in self.columns:
            if len(column) > 1:
                if groups and groups[-1][0] == column[0]:
                    groups[-1] = (column[0], groups[-1][1] + 1)
                else:
                    groups.append((column[0], 1))
        return groups

    @property
    def trials(self) -> list[tuple[str, str]]:
        """The trials behind our numbers: each value, or only the seed of a single trial."""
        lines: dict[tuple[str, str], None] = {}
        for row in self.rows:
            labels = " ".join(label for label in row.labels if label not in ("", "–"))
            for column, cell in zip(self.columns, row.cells, strict=True):
                for ours in cell.ours if cell else ():
                    found = ours.statistic
                    # A single trial's value is in the cell; detection's six columns share a line.
                    place = "" if self.is_detection and found.std is None else " ".join(column)
                    recipe = recipe_of(ours.group.first)
                    parts = (labels, place, "" if recipe is None else recipe.text)
                    where = ", ".join(part for part in parts if part)
                    marks = "".join(f" [{mark}]" for mark in ours.marks)
                    lines[where + marks, found.trials] = None
        return list(lines)

    @property
    def is_detection(self) -> bool:
        """True if its columns are the metrics of one record."""
        return self.number in _DETECTION


def build_paper_tables(groups: Sequence[Group]) -> list[PaperTable]:
    """Build every table of the paper, with or without our numbers."""
    return [_build(number, groups) for number in _CAPTIONS]


def _build(number: int, groups: Sequence[Group]) -> PaperTable:
    footnotes: list[str] = []
    printed: dict[tuple[str, ...], dict[tuple[str, ...], FilledCell]] = {}
    for entry in paper_cells(number):
        if entry.place is None:
            continue
        ours = _groups_of(entry, groups, footnotes)
        recipe = ""
        if number in _DETECTION:
            recipe = rsa_recipe(number, entry.method).fingerprint or ""
        for metric, score in entry.scores.items():
            column = entry.place.column or _DETECTION_COLUMNS[metric]
            measured = tuple(
                MeasuredNumber(statistic, group, marks)
                for group, marks in ours
                if (statistic := group.statistic(metric)) is not None
            )
            cell = FilledCell(score, metric, measured, work_of(entry) is None, recipe)
            printed.setdefault(entry.place.row, {})[column] = cell
    columns = tuple(dict.fromkeys(column for cells in printed.values() for column in cells))
    return PaperTable(
        number=number,
        caption=_CAPTIONS[number],
        label_heads=_LABELS.get(number, ("Method",)),
        columns=columns,
        rows=tuple(
            FilledRow(labels, tuple(cells.get(column) for column in columns))
            for labels, cells in printed.items()
        ),
        footnotes=tuple(footnotes),
    )


def _groups_of(
    entry: Published, groups: Sequence[Group], footnotes: list[str]
) -> list[tuple[Group, tuple[int, ...]]]:
    """Return the groups of a cell with their footnote numbers; append new footnotes."""
    found = []
    for group in groups:
        if belongs(group, entry):
            texts = [*departures(group, entry), *group.warnings]
            footnotes += [text for text in texts if text not in footnotes]
            found.append((group, tuple(footnotes.index(text) + 1 for text in texts)))
    return sorted(found, key=lambda pair: len(pair[1]))
