"""Results of rows in their folders, all numbers made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.ledger import page
from rsa_eval.record import Record, write_record
from rsa_eval.reproduction.rows import Row, find_rows

CONFIGS = Path(__file__).parents[3] / "configs"
NOTES = "# Ours\n\nBefore.\n\n<!-- study -->\n\nBetween.\n\n<!-- paper -->\n\nBehind | it.\n"


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """The toolkit's rows."""
    return find_rows(CONFIGS)


@pytest.fixture
def draw(tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A function that draws up the page from the results in the test's folder."""
    (tmp_path / "notes.md").write_text(NOTES)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(page, "find_rows", lambda configs: rows)

    def draw() -> str:
        out = tmp_path / "RESULTS.md"
        page.write_ledger(tmp_path / "results", tmp_path / "notes.md", CONFIGS, out)
        return out.read_text()

    return draw


@pytest.fixture
def lines_of() -> Callable[[str, str], list[list[str]]]:
    """A function that returns the cells of the lines whose command makes a row."""

    def lines_of(page: str, row: str) -> list[list[str]]:
        lines = [line for line in page.splitlines() if f" reproduce {row}" in line]
        return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]

    return lines_of


@pytest.fixture
def add_trial(
    tmp_path: Path, make_trial: Callable[..., Record], write_log: Callable[..., None]
) -> Callable[..., None]:
    """A function that puts a run of 100 steps and a record of its weights into a row's folder."""

    def add(
        row: str, recipe: str, *words: str, seed: int = 0, rate: float = 64.0, **changes: Any
    ) -> None:
        folder = tmp_path / "results" / row / f"seed-{seed}"
        lines = [
            {"step": 50 * n, "epoch": n / 2, "loss": 2.0 - n, "images_per_second": rate}
            for n in (1, 2)
        ]
        lines[-1]["knn_top1"] = 30.0 + seed
        write_log(folder, recipe, *words, f"seed={seed}", lines=lines, machines=("a GPU",))
        record = make_trial(recipe, *words, seed=seed, **changes)
        write_record(record, folder / f"records/{record.kind}.json")

    return add
