"""Every row of the paper's tables and of the study: its name, the published number, what makes it.

A row is called ``TABLE/DATA_SET/NAME``: ``table1/cifar10/rsa-decay``, ``table2/cifar10/rsa-200ep``
(with the epochs where a table has several schedules of a data set), ``table5/coco/rsa``. Tables 1,
2, 3, 4 and 8 are what the headers of the recipes say (``rsa_pretrain/recipes.py``); Tables 5 and 6
train detectors from rows of Table 4, and Table 7 is read from the logs of rows of Tables 2 and 3.
The study ``study/DATA_SET/NAME`` is no part of the paper: recipes ``DATA_SET/NAME_study.yaml``, and
``random`` for their network without training.

The folder of configs holds ``pretrain/``, ``detection/`` and ``eval/reproduce/``.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsa_eval.published import METHOD_OF_LABEL, Weights, paper_cells
from rsa_eval.published_numbers import SMALL_SETS, TABLE_7, TABLE_7_SETS
from rsa_pretrain.errors import UserError
from rsa_pretrain.recipes import DATA_SETS, PaperRow, Recipe, find_recipes, read_quoted_rows

STUDY = "study"
RANDOM = "random"

_STUDY_SUFFIX = "_study"
_SUITES = Path("eval/reproduce")
_SET_ORDER = [*DATA_SETS.values(), "coco"]
_SCHEDULES = {5: "1x", 6: "2x"}
_TABLE_7_EPOCHS = {"cifar100": 800, "stl10": 800, "imagenet100": 200}
_MULTI_STAGE = "ma"  # RSA has no other views, so its rows go without


@dataclass(frozen=True)
class Pretraining:
    """A run of a recipe and the evaluation of its backbone."""

    recipe: Recipe
    suite: Path
    """YAML file of the evaluations; their images are the recipe's."""
    trained: bool = True
    """False: there is no run; the recipe's network is evaluated at random weights."""


@dataclass(frozen=True)
class Detection:
    """A detector fine-tuned from the backbone of another row."""

    config: Path
    start: str | None
    """Name of the row whose backbone it starts from; None starts from random weights."""


@dataclass(frozen=True)
class Row:
    """One number of a table, or one of the study."""

    name: str
    """``TABLE/DATA_SET/NAME``."""
    table: int | None
    """None for the study."""
    label: str
    """As the paper calls the row."""
    data_set: str
    """As in ``data.name``."""
    epochs: int | None
    """Of pretraining; None where the table does not say, and without training."""
    published: str | None
    """Linear top-1 accuracy in percent, box and mask AP, or hours of training; None for the
    study."""
    home: str
    """Name of the row in whose folder the run and its records lie: another one's if two tables
    show the same run."""
    work: Pretraining | Detection | None
    """What makes it; None if the paper quotes a method that is not here."""


def find_rows(configs: Path) -> list[Row]:
    """Return every row, by table, data set and name; the study comes last.

    Args:
        configs: The folder of configs.

    Raises:
        UserError: If a recipe cannot be read, or two rows have the same name.
    """
    recipes = find_recipes(configs / "pretrain")
    linear = list(_linear_rows(recipes, read_quoted_rows(configs / "pretrain"), configs))
    rows = [
        *linear,
        *_detection_rows(linear, configs),
        *_timing_rows(linear),
        *_study_rows(recipes, configs),
    ]
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two rows are called {name}; headers of recipes say the same")
    return sorted(rows, key=_order)


def select_rows(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    """Return the rows of these names, or below them (``table1/cifar10``), each once.

    Raises:
        UserError: If a word names no row; says which come near.
    """
    selected: dict[str, Row] = {}
    for word in words:
        name = word.strip("/")
        found = {row.name: row for row in rows if f"{row.name}/".startswith(f"{name}/")}
        if not found:
            near = difflib.get_close_matches(name, [row.name for row in rows], cutoff=0.0)
            raise UserError(f"there is no row '{word}'; near it are {', '.join(near)}")
        selected |= found
    return list(selected.values())


def _linear_rows(
    recipes: Sequence[Recipe], quoted: Sequence[PaperRow], configs: Path
) -> Iterator[Row]:
    served: list[tuple[PaperRow, Recipe | None]] = [(paper, None) for paper in quoted]
    served += [(paper, recipe) for recipe in recipes for paper in recipe.paper_rows]
    schedules: dict[tuple[int, str], set[int]] = {}
    for paper, _ in served:
        schedules.setdefault((paper.table, paper.data_set), set()).add(paper.epochs)
    homes: dict[Path, str] = {}
    for paper, recipe in sorted(served, key=lambda pair: (pair[0].table, pair[0].row)):
        several = len(schedules[paper.table, paper.data_set]) > 1
        name = _name(paper.table, paper.data_set, paper.row, paper.epochs if several else None)
        yield Row(
            name=name,
            table=paper.table,
            label=paper.row,
            data_set=paper.data_set,
            epochs=paper.epochs,
            published=paper.published,
            home=name if recipe is None else homes.setdefault(recipe.path, name),
            work=None if recipe is None else _pretraining(recipe, configs),
        )


def _detection_rows(linear: Sequence[Row], configs: Path) -> Iterator[Row]:
    for table, schedule in _SCHEDULES.items():
        for cell in paper_cells(table):
            name, weights = _name(table, cell.data_set, cell.method), cell.weights
            box, mask = (cell.scores[metric].text for metric in ("bbox_AP", "segm_AP"))
            yield Row(
                name=name,
                table=table,
                label=cell.method,
                data_set=cell.data_set,
                epochs=None if weights is None else weights.epochs,
                published=f"box {box}, mask {mask}",
                home=name,
                work=None if weights is None else _detection(weights, schedule, linear, configs),
            )


def _detection(
    weights: Weights, schedule: str, linear: Sequence[Row], configs: Path
) -> Detection | None:
    own = {None: "_random", "supervised": "_supervised"}.get(weights.method, "")
    config = configs / "detection" / f"mask_rcnn_R_50_FPN_{schedule}{own}.yaml"
    if weights.method is None:
        return Detection(config, None)
    start = _trained_by(linear, weights.method, "imagenet", weights.epochs)
    return None if start is None else Detection(config, start.home)


def _timing_rows(linear: Sequence[Row]) -> Iterator[Row]:
    for label, hours in TABLE_7.items():
        for data_set, number in zip(TABLE_7_SETS, hours, strict=True):
            name, epochs = _name(7, data_set, label), _TABLE_7_EPOCHS[data_set]
            timed = _trained_by(linear, METHOD_OF_LABEL[label], data_set, epochs)
            yield Row(
                name=name,
                table=7,
                label=label,
                data_set=data_set,
                epochs=epochs,
                published=f"{number} h",
                home=name if timed is None else timed.home,
                work=None if timed is None else timed.work,
            )


def _study_rows(recipes: Sequence[Recipe], configs: Path) -> Iterator[Row]:
    of_random: dict[str, Recipe] = {}
    for recipe in recipes:
        if recipe.path.stem.endswith(_STUDY_SUFFIX):
            label = recipe.path.stem.removesuffix(_STUDY_SUFFIX).replace("_", " ")
            of_random.setdefault(recipe.config.data.name, recipe)
            yield _study_row(label, recipe, configs, trained=True)
    for recipe in of_random.values():
        yield _study_row(RANDOM, recipe, configs, trained=False)


def _study_row(label: str, recipe: Recipe, configs: Path, *, trained: bool) -> Row:
    config = recipe.config
    name = f"{STUDY}/{config.data.name}/{_slug(label)}"
    return Row(
        name=name,
        table=None,
        label=label,
        data_set=config.data.name,
        epochs=config.training.epochs if trained else None,
        published=None,
        home=name,
        work=Pretraining(recipe, configs / _SUITES / "study.yaml", trained),
    )


def _pretraining(recipe: Recipe, configs: Path) -> Pretraining:
    protocol = "moco_v2" if recipe.config.data.name in SMALL_SETS else "mean_shift"
    return Pretraining(recipe, configs / _SUITES / f"{protocol}.yaml")


def _trained_by(
    linear: Sequence[Row], method: str, data_set: str, epochs: int | None
) -> Row | None:
    """Return the row of the paper's own run of a method; those of Table 1 ablate it."""
    for row in linear:
        if row.table != 1 and row.data_set == data_set and isinstance(row.work, Pretraining):
            same = row.work.recipe.config.method.name == method
            if same and (epochs is None or row.epochs == epochs):
                return row
    return None


def _name(table: int, data_set: str, label: str, epochs: int | None = None) -> str:
    words = label if epochs is None else f"{label} {epochs}ep"
    return f"table{table}/{data_set}/{_slug(words)}"


def _slug(label: str) -> str:
    words = re.findall(r"[a-z0-9]+", label.lower())
    return "-".join(word for word in words if word != _MULTI_STAGE)


def _order(row: Row) -> tuple[bool, int, int, str, int]:
    """Tables by number, data sets in the paper's order; the study behind them."""
    sets = _SET_ORDER.index(row.data_set) if row.data_set in _SET_ORDER else len(_SET_ORDER)
    return row.table is None, row.table or 0, sets, row.label.lower(), row.epochs or 0
