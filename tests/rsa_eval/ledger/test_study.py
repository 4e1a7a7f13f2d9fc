from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rsa_eval.ledger.measured import Measured
from rsa_eval.ledger.study import study_tables
from rsa_eval.record import Record, write_record
from rsa_eval.report.inputs import collect
from rsa_eval.report.timing import time_runs
from rsa_eval.reproduction.rows import Pretraining, Row
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config
from rsa_pretrain.recipes import read_recipe

AddTrial = Callable[..., None]
CONFIGS = Path(__file__).parents[3] / "configs" / "pretrain"
SHORT = ("training.epochs=1", "data.num_train_images=25600")
RSA, BYOL, RANDOM = "study/cifar10/rsa", "study/cifar10/byol-aa", "study/cifar10/random"
RECIPES = {RSA: "cifar10/rsa_200ep.yaml", BYOL: "cifar10/byol_200ep.yaml"}


def _row(name: str, path: str, *, trained: bool = True) -> Row:
    config = load_config(PretrainConfig, CONFIGS / path, SHORT)
    recipe = replace(read_recipe(CONFIGS / path), config=config)
    return Row(
        name=name,
        table=None,
        label=name.rpartition("/")[2].replace("-", " "),
        data_set="cifar10",
        epochs=1,
        published=None,
        home=name,
        work=Pretraining(recipe, Path("study.yaml"), trained),
    )


@pytest.fixture
def draw(tmp_path: Path) -> Callable[[], str]:
    """A function that draws a study of three rows from the results in the test's folder."""
    (tmp_path / "results").mkdir()

    def draw() -> str:
        inputs = collect([tmp_path / "results"], allow_empty=True)
        rows = [_row(name, recipe) for name, recipe in sorted(RECIPES.items())]
        measured = Measured(
            rows=[*rows, _row(RANDOM, RECIPES[RSA], trained=False)],
            records=inputs.records,
            timings={timing.run.folder: timing for timing in time_runs(inputs.runs)},
            results=tmp_path / "results",
            page_folder=tmp_path,
        )
        return study_tables(measured)

    return draw


def _cells(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_rows_with_every_evaluation_over_their_seeds(
    tmp_path: Path, draw: Callable[[], str], add_trial: AddTrial, make_result: Callable[..., Record]
) -> None:
    """A column per evaluation, mean ± std with each seed; what is not there says so."""
    for seed in (0, 1):
        for kind, top1 in (("linear", 40.0), ("knn", 30.0)):
            add_trial(
                RSA, RECIPES[RSA], *SHORT, seed=seed, kind=kind, values={"top1": top1 + seed},
                deviations=["10000 images"], seconds=36.0, rate=51.2,
            )  # fmt: skip
    add_trial(BYOL, RECIPES[BYOL], *SHORT, values={"top1": 41.0}, deviations=["10000 images"])
    random = make_result(random_init=True, deviations=["10000 images"], values={"top1": 33.0})
    write_record(random, tmp_path / "results" / RANDOM / "seed-0/records/linear.json")
    page = draw()
    head, _, rsa, byol, untrained, *course = _cells(page)
    assert head[:4] == [
        "row",
        "Nearest neighbours moco\\_v2, top1 (%) [1]",
        "Linear probe moco\\_v2, top1 (%) [1]",
        "seeds",
    ]
    assert [line[0].partition("]")[0] for line in (rsa, byol, untrained)] == [
        "[RSA",
        "[BYOL AA",
        "[Random weights",
    ]
    assert rsa[1:6] == [
        "**30.50 ± 0.71** (30.00, 31.00)",
        "**40.50 ± 0.71** (40.00, 41.00)",
        "0, 1",
        "0.14 + 0.02",
        "1.25 ± 0.00",
    ]
    assert rsa[-1] == f"`rsa-pretrain reproduce {RSA} --seeds 0,1 data.root=data`"
    assert byol[1:4] == ["not yet measured", "**41.00**", "0"]
    assert untrained[2:6] == ["**33.00**", "0", "– + 0.00", "–"]
    assert "- [1] 10000 images" in page
    assert course[0] == ["row", "epoch 1", "loss, first", "loss, last"]
    assert [line[1:] for line in course[2:]] == [
        ["30.50", "1.000", "0.000"],
        ["30.00", "1.000", "0.000"],
    ]


def test_without_records_every_row_says_so(draw: Callable[[], str]) -> None:
    """The table stands before the study is run."""
    head, _, *lines = _cells(draw())
    assert head == ["row", "measured", "command"]
    assert [line[1] for line in lines] == ["not yet measured"] * 3


def test_trials_that_differ_in_more_than_seeds_are_not_averaged(
    draw: Callable[[], str], add_trial: AddTrial
) -> None:
    """Another rate in one of the seeds' folders is another number, and is told."""
    add_trial(RSA, RECIPES[RSA], *SHORT, values={"top1": 40.0})
    add_trial(
        RSA, RECIPES[RSA], *SHORT, "optimizer.base_lr=0.3", seed=1, seeds=[1], values={"top1": 44.0}
    )
    page = draw()
    assert _cells(page)[2][1] == "**40.00** (seed 0)<br>**44.00** [1] (seed 1)"
    assert "- [1] training: optimizer.base\\_lr 0.3 (config: 0.1)" in page


def test_results_of_a_config_that_was_changed_say_so(
    draw: Callable[[], str], add_trial: AddTrial
) -> None:
    """So do weights whose training is not known, and trained ones in place of random ones."""
    add_trial(RSA, RECIPES[RSA], *SHORT, "method.beta_base=0.9", values={"top1": 40.0})
    add_trial(BYOL, RECIPES[BYOL], *SHORT, values={"top1": 41.0}, pretraining=False)
    add_trial(RANDOM, RECIPES[RSA], *SHORT, values={"top1": 42.0})
    page = draw()
    _, _, rsa, byol, untrained, *_ = _cells(page)
    assert rsa[1] == "**40.00** [1]"
    assert byol[1] == "**41.00** [2]"
    assert untrained[1] == "**42.00** [3]"
    assert "- [1] training: method.beta\\_base 0.9 (config: 0.3)" in page
    assert "- [2] the settings of training are not recorded" in page
    assert "- [3] the weights are trained" in page


def test_a_logged_line_without_a_number_for_its_epoch_is_no_part_of_the_course(
    tmp_path: Path, draw: Callable[[], str], add_trial: AddTrial
) -> None:
    """A log is what anyone may have written."""
    add_trial(RSA, RECIPES[RSA], *SHORT, values={"top1": 40.0})
    log = tmp_path / "results" / RSA / "seed-0" / "metrics.jsonl"
    log.write_text(log.read_text().replace('"epoch": 0.5', '"epoch": "half"'))
    assert _cells(draw())[-1][1:] == ["30.00", "0.000", "0.000"]


def test_the_command_makes_the_seed_that_was_measured(
    draw: Callable[[], str], add_trial: AddTrial
) -> None:
    """Without the option it would make seed 0."""
    add_trial(RSA, RECIPES[RSA], *SHORT, seed=1, values={"top1": 40.0})
    assert _cells(draw())[2][-1] == f"`rsa-pretrain reproduce {RSA} --seeds 1 data.root=data`"
