"""The recipes, one YAML file per row of the paper's tables, and what their headers say.

Recipes lie in ``DIR/<data set>/<name>.yaml``; ``base.yaml`` beside them and everything deeper
are parts they share. Each opens with comments:

    # rsa-pretrain run configs/pretrain/cifar10/rsa_200ep.yaml data.root=data
    #
    # Paper: Table 2, RSA, CIFAR-10, 200 epochs: linear top-1 92.3 ± 0.1
    # Effective batch: 256 on one device.
    # Measured: not yet.

with one ``Paper:`` line per row served, none if it serves none, and notes behind them.
``DIR/quoted.txt`` holds such lines for the rows whose method is not here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config
from rsa_pretrain.errors import UserError

DATA_SETS = {
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "STL-10": "stl10",
    "Tiny ImageNet": "tiny_imagenet",
    "ImageNet-100": "imagenet100",
    "ImageNet-1K": "imagenet",
}
"""Data sets as the paper and as ``data.name`` call them."""

_SHARED_FILE = "base.yaml"
_QUOTED_FILE = "quoted.txt"

_COMMAND = re.compile(r"(?:rsa-pretrain|torchrun \S.* -m rsa_pretrain) run (\S+)(?: .*)?")
_FIELD = re.compile(r"(Paper|Effective batch|Measured)\b(?:: (\S.*))?")
_PAPER = re.compile(
    r"Table (\d+), (.+), ([^,]+), (\d+) epochs: linear top-1 (\d+\.\d(?: ± \d+\.\d)?)"
)
_BATCH = re.compile(r"(\d+) (?:on one device|= \d+ devices x \d+)\.")


@dataclass(frozen=True)
class PaperRow:
    """One number of the paper's tables."""

    table: int
    row: str
    """Name of the row, with its other columns where the name alone is not enough."""
    data_set: str
    """As in ``data.name``."""
    epochs: int
    published: str
    """Linear top-1 accuracy in percent, as printed."""


@dataclass(frozen=True)
class Recipe:
    """One config with its header."""

    path: Path
    config: PretrainConfig
    command: str
    """What trains it."""
    paper_rows: tuple[PaperRow, ...]
    """The numbers it is meant to reproduce."""
    measured: str
    """Our number and its hardware, or ``not yet``."""


def find_recipes(folder: Path) -> list[Recipe]:
    """Read every recipe below a folder, in the order of their paths.

    Raises:
        UserError: If there is none, or one cannot be read or contradicts its header.
    """
    paths = sorted(path for path in folder.glob("*/*.yaml") if path.name != _SHARED_FILE)
    if not paths:
        raise UserError(
            f"'{folder}' holds no recipes; expected {folder}/DATA_SET/NAME.yaml, "
            "as in configs/pretrain of the toolkit's source"
        )
    return [read_recipe(path) for path in paths]


def read_recipe(path: Path) -> Recipe:
    """Read one recipe.

    Raises:
        UserError: If its config or its header cannot be used, or they contradict each other.
    """
    config = load_config(PretrainConfig, path)
    command, *lines = _header_lines(path)
    named = _match(_COMMAND, command, path, 1, "its command, 'rsa-pretrain run THIS_FILE …'")
    if Path(named[1]).parts[-2:] != path.absolute().parts[-2:]:
        raise _bad_line(path, 1, command, f"a command that names this file, not '{named[1]}'")
    fields = _fields(path, lines)
    _check_batch(path, *fields["Effective batch"][0], config)
    paper_rows = tuple(_own_paper_row(path, *line, config) for line in fields["Paper"])
    return Recipe(path, config, command, paper_rows, fields["Measured"][0][1].removesuffix("."))


def read_quoted_rows(folder: Path) -> list[PaperRow]:
    """Read the paper's rows whose method is not here; none if the folder does not list any.

    Raises:
        UserError: If the file is no text, or a line no ``Paper:`` line.
    """
    path = folder / _QUOTED_FILE
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"cannot read '{path}': it is not UTF-8 text") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.startswith("#"):
            if not line.startswith("Paper: "):
                raise _bad_line(path, number, line, "'Paper: …'")
            rows.append(_paper_row(path, number, line.removeprefix("Paper: ")))
    return rows


def _header_lines(path: Path) -> list[str]:
    def comments() -> Iterator[str]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                return
            yield line.removeprefix("#").strip()

    return list(comments()) or [""]


def _fields(path: Path, lines: list[str]) -> dict[str, list[tuple[int, str]]]:
    """Return the numbered lines of each field; ``lines`` are those behind the command."""
    fields: dict[str, list[tuple[int, str]]] = {"Paper": [], "Effective batch": [], "Measured": []}
    for number, line in enumerate(lines, start=2):
        if field := _FIELD.match(line):
            if field[2] is None:
                raise _bad_line(path, number, line, f"'{field[1]}: …'")
            fields[field[1]].append((number, field[2]))
    for name in ("Effective batch", "Measured"):
        if len(fields[name]) != 1:
            raise UserError(
                f"{path}: its header (lines 1 to {len(lines) + 1}) has {len(fields[name])} lines "
                f"'# {name}: …', expected 1"
            )
    return fields


def _own_paper_row(path: Path, number: int, text: str, config: PretrainConfig) -> PaperRow:
    row = _paper_row(path, number, text)
    if (row.data_set, row.epochs) != (config.data.name, config.training.epochs):
        own = f"the config's own '{config.data.name}, {config.training.epochs} epochs'"
        raise _bad_line(path, number, text, own)
    return row


def _paper_row(path: Path, number: int, text: str) -> PaperRow:
    form = "'Table N, ROW, DATA SET, N epochs: linear top-1 N.N ± N.N'"
    table, row, label, epochs, published = _match(_PAPER, text, path, number, form).groups()
    if label not in DATA_SETS:
        raise _bad_line(path, number, text, f"a data set of {', '.join(DATA_SETS)}")
    return PaperRow(int(table), row, DATA_SETS[label], int(epochs), published)


def _check_batch(path: Path, number: int, text: str, config: PretrainConfig) -> None:
    form = "'N on one device.' or 'N = N devices x N.'"
    batch = _match(_BATCH, text, path, number, form)
    if int(batch[1]) != config.training.global_batch_size:
        expected = f"training.global_batch_size {config.training.global_batch_size}"
        raise _bad_line(path, number, text, expected)


def _match(
    pattern: re.Pattern[str], text: str, path: Path, number: int, form: str
) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise _bad_line(path, number, text, form)
    return match


def _bad_line(path: Path, number: int, found: str, expected: str) -> UserError:
    return UserError(f"{path} line {number}: expected {expected}, found '{found}'")
