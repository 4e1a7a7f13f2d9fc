import os
import re
from pathlib import Path

import pytest

from rsa_eval.paper.numbers import TABLE_7
from rsa_eval.paper.published import PUBLISHED, Score, paper_cells, published_for


def _find(data_set: str, kind: str, method: str, setting: str, source: str) -> dict[str, str]:
    (row,) = [
        row
        for row in published_for(data_set, kind)
        if row.method == method and row.setting == setting and row.source.startswith(source)
    ]
    return {metric: score.text for metric, score in row.scores.items()}


@pytest.mark.parametrize(
    ("data_set", "method", "setting", "source", "top1"),
    [
        (
            "tiny_imagenet",
            "RSA",
            "ResNet-18, 200 epochs, MA, beta fixed",
            "RSA, Table 1",
            "53.9±0.2",
        ),
        ("cifar10", "RSA", "ResNet-18, 200 epochs", "RSA, Table 2", "92.3±0.1"),
        ("stl10", "SimSiam", "ResNet-18, 800 epochs", "RSA, Table 2", "89.7"),
        ("imagenet100", "MoCo v2", "ResNet-50, 200 epochs", "RSA, Table 3", "83.9"),
        ("imagenet", "RSA", "ResNet-50, 200 epochs, batch 2048", "RSA, Table 4, row 16", "73.1"),
        ("cifar100", "SimSiam + RSA", "ResNet-18, 200 epochs", "RSA, Table 8", "63.7±0.5"),
        ("cifar100", "BYOL", "ResNet-18, 1000 epochs", "solo-learn", "70.46"),
    ],
)
def test_linear_numbers(data_set: str, method: str, setting: str, source: str, top1: str) -> None:
    """Single cells, copied independently from the printed tables."""
    assert _find(data_set, "linear", method, setting, source) == {"top1": top1}


@pytest.mark.parametrize(
    ("epochs", "source", "printed"),
    [
        (200, "lightly's imagenette_benchmark.py", "0.705 0.786 0.752 0.835 0.873 0.861"),
        (800, "lightly's benchmarks", "0.887 0.874 0.872 0.889 0.888 0.902"),
    ],
)
def test_neighbours_on_imagenette(epochs: int, source: str, printed: str) -> None:
    """Copied independently from lightly's script and page, which print shares of one."""
    setting = f"ResNet-18, {epochs} epochs, batch 256, k=200, best epoch"
    rows = [row for row in published_for("imagenette", "knn") if row.setting == setting]
    assert [row.method for row in rows] == ["BYOL", "MoCo", "SimSiam", "SimCLR", "DINO", "SwAV"]
    assert {row.source for row in rows} == {source}
    found = [f"{row.scores['top1'].mean / 100:.3f}" for row in rows]
    assert found == printed.split()


def test_detection_rows() -> None:
    """RSA's rows of Tables 5 and 6, in the metrics' order."""
    for table, schedule, printed in (
        (5, "1×", "41.1 61.4 45.1 37.3 58.6 40.1"),
        (6, "2×", "42.7 62.9 47.1 38.5 60.0 41.4"),
    ):
        setting = f"Mask R-CNN R50-FPN, {schedule} schedule"
        row = _find("coco", "detection", "RSA", setting, f"RSA, Table {table}")
        assert list(row) == [
            f"{kind}_{metric}" for kind in ("bbox", "segm") for metric in ("AP", "AP50", "AP75")
        ]
        assert " ".join(row.values()) == printed


def test_number_of_rows_by_table() -> None:
    """Every cell of the tables is there: methods times columns."""
    expected = {1: 4 * 5, 2: 5 * 8, 3: 5 * 2, 4: 16, 5: 8, 6: 8, 8: 2 * 3}
    for table, count in expected.items():
        rows = [row for row in PUBLISHED if row.source.startswith(f"RSA, Table {table},")]
        assert len(rows) == count


def test_scores_are_numbers() -> None:
    """Mean and deviation of the printed text."""
    assert (Score("92.3±0.1").mean, Score("92.3±0.1").std) == (92.3, 0.1)
    assert (Score("93.7").mean, Score("93.7").std) == (93.7, None)
    assert all(0 < score.mean < 100 for row in PUBLISHED for score in row.scores.values())


def test_nothing_is_published_for_digits() -> None:
    """A data set without published numbers has none."""
    assert published_for("digits", "knn") == []


@pytest.fixture
def printed_tables() -> dict[int, list[list[str]]]:
    """The rows of the paper's tables, from its text beside the real data."""
    folder = os.environ.get("RSA_DATA")
    paper = Path(folder).parent / "paper.txt" if folder else None
    if paper is None or not paper.is_file():
        pytest.skip("there is no paper.txt beside the folder that RSA_DATA names")
    tables: dict[int, list[list[str]]] = {}
    rows: list[list[str]] | None = None
    for line in paper.read_text(encoding="utf-8").splitlines():
        if caption := re.match(r"Table (\d+):", line):
            rows = tables.setdefault(int(caption[1]), [])
        elif rows is not None and line.startswith("|"):
            plain = line.replace(r"{\pm}", "±").replace("$", "").replace(" ", "")
            rows.append([cell for cell in plain.strip("|").split("|") if cell])
        elif line.strip():
            rows = None
    return tables


@pytest.mark.parametrize("table", [1, 2, 3, 4, 5, 6, 8])
def test_numbers_are_the_papers_own(table: int, printed_tables: dict[int, list[list[str]]]) -> None:
    """Each row of each table, number by number in the order of the columns."""
    ours: dict[tuple[str, ...], list[str]] = {}
    for entry in paper_cells(table):
        assert entry.place is not None
        scores = [score.text for score in entry.scores.values()]
        ours.setdefault(entry.place.row, []).extend(scores)
    number = re.compile(r"\d+\.\d(±\d\.\d)?")
    rows = [[cell for cell in row if number.fullmatch(cell)] for row in printed_tables[table]]
    assert list(ours.values()) == [row for row in rows if row]


def test_training_times_are_the_papers_own(printed_tables: dict[int, list[list[str]]]) -> None:
    """Table 7, in hours."""
    rows = [[name, *(f"{hours}h" for hours in times)] for name, times in TABLE_7.items()]
    assert printed_tables[7][2:] == rows
