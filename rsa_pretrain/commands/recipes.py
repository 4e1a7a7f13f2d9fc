"""``rsa-pretrain recipes``: the recipes beside the paper's rows."""

import argparse
from pathlib import Path
from typing import get_args

from rsa_pretrain.command_line import Commands, positive, say
from rsa_pretrain.errors import UserError
from rsa_pretrain.recipes import DATA_SETS, PaperRow, Recipe, find_recipes, read_quoted_rows
from rsa_pretrain.text_table import TableFormat, render_table

_COLUMNS = (
    "config",
    "method",
    "data set",
    "epochs",
    "batch",
    "optimizer",
    "paper",
    "published",
    "measured",
)
_SET_ORDER = list(DATA_SETS.values())


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "recipes",
        help="list the recipes beside the rows of the paper's tables",
        description="List every row of the paper's Tables 1, 2, 3, 4 and 8 with the config that\n"
        "serves it, the published linear top-1 accuracy (%) and ours, then the configs beyond\n"
        "the paper. A row whose method is not here is quoted, without a config.",
        epilog="examples:\n  rsa-pretrain recipes --table 2 --data-set cifar10\n"
        "  rsa-pretrain recipes --format markdown",
    )
    parser.add_argument(
        "--configs",
        metavar="DIR",
        type=Path,
        default=Path("configs/pretrain"),
        help="folder of the recipes (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=get_args(TableFormat), default="text", help="default: %(default)s"
    )
    parser.add_argument("--table", metavar="N", type=positive, help="only this table of the paper")
    parser.add_argument("--data-set", metavar="NAME", help="only this data.name")
    parser.add_argument("--method", metavar="NAME", help="only this method.name")
    parser.set_defaults(command=_recipes)


def _recipes(arguments: argparse.Namespace) -> int:
    lines: list[tuple[Recipe | None, PaperRow | None]] = [
        (recipe, row)
        for recipe in find_recipes(arguments.configs)
        for row in recipe.paper_rows or (None,)
    ]
    lines += [(None, row) for row in read_quoted_rows(arguments.configs)]
    wanted = {1: arguments.method, 2: arguments.data_set}
    rows = [
        cells
        for recipe, row in sorted(lines, key=_order)
        if arguments.table is None or (row is not None and row.table == arguments.table)
        for cells in [_cells(recipe, row)]
        if all(value is None or cells[column] == value for column, value in wanted.items())
    ]
    if not rows:
        raise UserError("no recipe matches; leave out --table, --data-set or --method")
    say(render_table(_COLUMNS, rows, arguments.format))
    return 0


def _order(line: tuple[Recipe | None, PaperRow | None]) -> tuple[bool, int, int, str, int]:
    """Tables first, by number, data set in the paper's order, row and epochs."""
    recipe, row = line
    if row is not None:
        return False, row.table, _SET_ORDER.index(row.data_set), row.row, row.epochs
    return True, 0, 0, str(recipe.path if recipe else ""), 0


def _cells(recipe: Recipe | None, row: PaperRow | None) -> tuple[str | int | None, ...]:
    paper = (f"Table {row.table}, {row.row}", row.published) if row else (None, None)
    if recipe is None:
        data = (row.data_set, row.epochs) if row else (None, None)
        return (None, "not here", *data, None, None, *paper, None)
    config = recipe.config
    return (
        recipe.path.as_posix(),
        config.method.name,
        config.data.name,
        config.training.epochs,
        config.training.global_batch_size,
        config.optimizer.name,
        *paper,
        recipe.measured,
    )
