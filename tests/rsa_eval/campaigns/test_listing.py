"""The table of rows: needs, measured steps, status."""

import csv
import io
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from rsa_eval.campaigns.listing import RowListing
from rsa_eval.paper.rows import PaperRow, find_rows
from rsa_pretrain.config import PretrainConfig

RSA = "study/imagefolder/rsa"
RANDOM = "study/imagefolder/random"

Reproduce = Callable[..., int]


class Measured:
    """Fakes a machine with given step time and memory."""

    def __init__(self, cost: tuple[float, int] | None) -> None:
        self.cost = cost
        self.configs: list[PretrainConfig] = []

    def __call__(self, config: PretrainConfig) -> tuple[float, int] | None:
        """Note the run."""
        self.configs.append(config)
        return self.cost


def cells_of(rows: list[PaperRow], name: str, listing: RowListing) -> dict[str, object]:
    """One row's cells by column."""
    (row,) = (row for row in rows if row.name == name)
    return listing.cells(row)


def status_of(folder: Path, name: str, out: str = "out") -> object:
    """A row of the small study, as it is listed."""
    listing = RowListing(folder / out, (), None)
    return cells_of(find_rows(folder / "rows.yaml"), name, listing)["status"]


def test_every_row_is_listed_with_its_number_and_its_recipe(
    capsys: pytest.CaptureFixture[str], reproduce: Reproduce, tmp_path: Path, rows: list[PaperRow]
) -> None:
    """One line per row, without measuring; methods not implemented are marked."""
    assert reproduce(tmp_path, "--list", "--format", "csv") == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["row"] for line in lines] == [row.name for row in rows]
    quoted = [line["row"] for line in lines if line["method"] == "not implemented"]
    assert quoted == [row.name for row in rows if row.work is None]
    (line,) = (line for line in lines if line["row"] == "table2/cifar10/rsa-200ep")
    recipe = line["published"], line["method"], line["epochs"], line["batch"], line["optimizer"]
    assert recipe == ("92.3 ± 0.1", "rsa", "200", "256", "sgd")
    assert reproduce(tmp_path, "--list", "table1", "--method", "byol", "--format", "markdown") == 0
    heading, _, *lines = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    assert heading[3] == "method"
    assert {line[3] for line in lines} == {"byol"}
    assert reproduce(tmp_path, "--list", "table1", "--method", "moco_v2") == 2
    assert "--method 'moco_v2' matches no row" in capsys.readouterr().err


def test_some_rows_are_listed(
    capsys: pytest.CaptureFixture[str], reproduce: Reproduce, fresh: Path
) -> None:
    """Only named rows are listed; an unknown row is refused."""
    assert reproduce(fresh, "--list", RSA) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert reproduce(fresh, "--list", "study/imagefolder/rsb") == 2
    assert f"similar: {RSA}" in capsys.readouterr().err


def test_data_is_looked_for_below_the_root(rows: list[PaperRow], tmp_path: Path) -> None:
    """The folder that the published archive unpacks to."""
    listing = RowListing(tmp_path, (f"data.root={tmp_path}",), None)
    name = "table1/cifar10/rsa-decay"
    assert cells_of(rows, name, listing)["data"] == f"cifar10, not in {tmp_path}"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert cells_of(rows, name, listing)["data"] == f"cifar10, found in {tmp_path}"


@pytest.mark.parametrize(
    ("name", "images", "batch", "epochs"),
    [
        ("table1/cifar10/rsa-decay", 50_000, 256, 200),
        ("table2/stl10/simclr-800ep", 105_000, 256, 800),
        ("table3/imagenet100/rsa-200ep", 126_689, 256, 200),
        ("table4/imagenet/rsa-200ep", 1_281_167, 2048, 200),
    ],
)
def test_hours_are_those_of_all_steps(
    rows: list[PaperRow], tmp_path: Path, name: str, images: int, batch: int, epochs: int
) -> None:
    """Whole batches of every epoch, at the measured seconds a step."""
    measured = Measured((0.5, 3 * 2**30))
    cells = cells_of(rows, name, RowListing(tmp_path, (), measured))
    assert cells["hours"] == Decimal(f"{images // batch * epochs * 0.5 / 3600:.2f}")
    assert cells["GiB"] == Decimal("3.0")
    (config,) = measured.configs
    assert config.training.global_batch_size == batch


def test_what_does_not_fit_says_so(rows: list[PaperRow], tmp_path: Path) -> None:
    """No hours for a step that cannot be taken."""
    cells = cells_of(rows, "table1/cifar10/byol-aa", RowListing(tmp_path, (), Measured(None)))
    assert (cells["GiB"], cells["hours"]) == ("too much", None)


@pytest.mark.process
def test_measuring_takes_real_steps_and_leaves_nothing(
    fresh: Path, reproduce: Reproduce, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only named rows are measured; random weights need no step."""
    before = {path for path in fresh.rglob("*")}
    assert reproduce(fresh, "--list", "--measure", "study") == 0
    _, random, trained, *_ = capsys.readouterr().out.splitlines()
    assert "random weights" in random
    gib, hours = trained.removesuffix("not started").split()[-2:]
    assert 0.1 < float(gib) < 8
    assert hours == "–"  # nobody knows how many images the folder has
    assert {path for path in fresh.rglob("*")} == before
    assert reproduce(fresh, "--list", "--measure") == 2
    assert "--measure needs --list and the ROWs" in capsys.readouterr().err


def test_status_follows_a_run(fresh: Path, copied: Path) -> None:
    """Not started, steps taken, trained, some records, all of them; damage is named."""
    assert status_of(fresh, RSA, out="elsewhere") == "not started"
    assert status_of(fresh, RSA) == status_of(fresh, RANDOM) == "seed 0: recorded"
    (copied / "records" / "knn.json").unlink()
    assert status_of(fresh, RSA) == "seed 0: trained, logistic, linear_cached"
    shutil.rmtree(copied / "records")
    assert status_of(fresh, RSA) == "seed 0: trained"
    (copied / "backbone.safetensors").unlink()
    assert status_of(fresh, RSA) == "seed 0: step 4 of 4"
    (copied / "checkpoints" / "step-00000004").rename(copied / "checkpoints" / "step-00000002")
    assert status_of(fresh, RSA) == "seed 0: step 2 of 4"
    (copied / "metrics.jsonl").write_text("no line\nno line\n")
    assert str(status_of(fresh, RSA)).startswith("seed 0: unusable (")
    (copied.parent / "seed-12").mkdir()
    assert str(status_of(fresh, RSA)).endswith("; seed 12: not started")


def test_a_run_that_is_not_gone_on_with_is_no_progress(made: Path, fresh: Path) -> None:
    """A folder that was copied to another seed's place is not this seed, trained."""
    run = made / "out" / RSA / "seed-0"
    shutil.copytree(run, fresh / "out" / RSA / "seed-1")
    status = str(status_of(fresh, RSA))
    assert status.startswith("seed 1: unusable (")
    assert "contains a run with other settings: seed (was 0, is 1)" in status
