"""The catalogue of rows."""

from pathlib import Path

import pytest

from rsa_eval.campaigns.settings import SuiteConfig, load_evaluations
from rsa_eval.paper.published import PUBLISHED
from rsa_eval.paper.rows import Detection, PaperRow, Pretraining, find_rows, select_rows
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.config.files import load_config, to_tree
from rsa_pretrain.plumbing.errors import UserError

CONTROL = (
    "cifar10/byol methods/resnet18/cpu_study_cifar10 optimizer.base_lr=1e-09 training.epochs=1"
)


def named(rows: list[PaperRow], name: str) -> PaperRow:
    """The row of this name."""
    (row,) = (row for row in rows if row.name == name)
    return row


def test_every_row_of_the_tables_is_there_once(rows: list[PaperRow]) -> None:
    """Each cell of an accuracy, each row of average precisions, and the six hours of Table 7."""
    of_tables = [cell for cell in PUBLISHED if cell.place is not None]
    assert len([row for row in rows if row.table == 7]) == 6
    assert len([row for row in rows if row.table]) == len(of_tables) + 6


def test_names_are_unique_and_safe_for_folders(rows: list[PaperRow]) -> None:
    """Each name is three lower-case words of a path."""
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        table, data_set, name = row.name.split("/")
        assert table == ("study" if row.table is None else f"table{row.table}")
        assert data_set == row.data_set
        assert name
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("name", "published", "made_by", "suite"),
    [
        ("table1/cifar10/rsa-decay", "92.1 ± 0.0", "cifar10/rsa method.beta_base=0.5", "moco_v2"),
        ("table2/cifar10/rsa-200ep", "92.3 ± 0.1", "cifar10/rsa", "moco_v2"),
        ("table3/imagenet100/moco-v2-100ep", "80.9", "imagenet100/moco_v2", "mean_shift"),
        ("table7/stl10/rsa", "79.6 h", "stl10/rsa training.epochs=800", "moco_v2"),
        ("table8/cifar100/simsiam-rsa", "63.7 ± 0.5", "cifar100/simsiam_rsa", "moco_v2"),
        ("study/cifar10/byol-control", None, CONTROL, "study"),
        ("study/scattered_digits/rsa", None, "scattered_digits/rsa", "scattered_digits"),
    ],
)
def test_a_row_has_its_number_its_run_and_its_protocol(
    rows: list[PaperRow], name: str, published: str | None, made_by: str, suite: str
) -> None:
    """Examples of each table."""
    row = named(rows, name)
    assert row.published == published
    assert isinstance(row.work, Pretraining)
    assert row.work.name == made_by
    assert row.work.config.data.name == row.data_set
    assert row.work.suite.name == suite


def test_runs_have_the_epochs_of_their_rows(rows: list[PaperRow]) -> None:
    """Whatever a table says of the length of training, the run has."""
    for row in rows:
        if isinstance(row.work, Pretraining) and row.epochs is not None:
            assert row.work.config.training.epochs == row.epochs


def test_detectors_start_from_rows_of_table_4(rows: list[PaperRow]) -> None:
    """The paper's own, and the baselines that are here; each config is there."""
    starts = {row.name: row.work.start for row in rows if isinstance(row.work, Detection)}
    expected = {
        "rsa": "table4/imagenet/rsa-200ep",
        "moco-v2": "table4/imagenet/moco-v2-200ep",
        "supervised": "table4/imagenet/supervised-100ep",
        "random-init": None,
    }
    assert starts == {
        f"table{table}/coco/{name}": start for table in (5, 6) for name, start in expected.items()
    }
    configs = {row.name: row.work.config.name for row in rows if isinstance(row.work, Detection)}
    assert configs == {
        f"table{table}/coco/{name}": "infomin_mask_rcnn_R_50_FPN_2x"
        if table == 6 and name != "rsa"
        else f"mask_rcnn_R_50_FPN_{table - 4}x"
        for table in (5, 6)
        for name in expected
    }
    assert named(rows, "table5/coco/rsa").published == "box 41.1, mask 37.3"


def test_methods_that_are_not_here_are_quoted(rows: list[PaperRow]) -> None:
    """Rows without work are baselines of Tables 4 to 6."""
    quoted = {(row.table, row.label) for row in rows if row.work is None}
    baselines = {"InstDis", "PIRL", "MoCo", "InfoMin Aug."}
    assert {label for table, label in quoted if table == 5} == baselines
    assert {table for table, _ in quoted} == {4, 5, 6}


def test_a_run_of_several_tables_has_one_home(rows: list[PaperRow]) -> None:
    """Rows whose runs resolve alike share the folder of the first of them."""
    homes: dict[str, set[str]] = {}
    for row in rows:
        if isinstance(row.work, Pretraining) and row.work.trained:
            run = row.work.config.model_copy(update={"output_dir": Path()})
            homes.setdefault(str(to_tree(run)), set()).add(row.home)
    assert all(len(names) == 1 for names in homes.values())
    assert named(rows, "table2/cifar10/byol-200ep").home == "table1/cifar10/byol-aa"
    assert named(rows, "table8/cifar100/simsiam").home == "table2/cifar100/simsiam-200ep"
    assert named(rows, "table7/cifar100/byol").home == "table2/cifar100/byol-800ep"
    names = {row.name for row in rows}
    assert {row.home for row in rows} <= names


@pytest.mark.parametrize(
    ("suite", "protocols"),
    [
        ("moco_v2", ["weighted_vote", "moco_v2"]),
        ("mean_shift", ["weighted_vote", "mean_shift"]),
        ("study", ["weighted_vote", "dinov2", "moco_v2"]),
        ("eurosat", ["weighted_vote", "dinov2", "moco_v2"]),
        ("scattered_digits", ["weighted_vote", "dinov2"]),
    ],
)
def test_suites_resolve_with_the_images_of_a_run(suite: str, protocols: list[str]) -> None:
    """Each has kNN; the paper's have the linear probe of the protocol they are named after."""
    images = load_config(PretrainConfig, Path("cifar10/rsa")).data
    start = {"data": to_tree(images)}
    config = load_config(SuiteConfig, Path("reproduce", suite), start=start)
    evaluations = load_evaluations(config, Path(), Path("features"))
    assert {evaluation.config.data for evaluation in evaluations} == {images}
    assert [evaluation.config.protocol for evaluation in evaluations] == protocols


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    """Rows beyond the paper; random weights of a network are a row; paths are taken as names."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "study/cifar10/rsa: {config: cifar10/rsa, settings: {training.epochs: 3}}\n"
        "study/cifar10/random: {config: [cifar10/rsa], random_init: true}\n"
    )
    found = find_rows(path)
    assert [row.name for row in found] == ["study/cifar10/random", "study/cifar10/rsa"]
    works = [row.work for row in found if isinstance(row.work, Pretraining)]
    assert [work.trained for work in works] == [False, True]
    assert works[1].config.training.epochs == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table2/cifar10/rsa-300ep: {config: cifar10/rsa}", "no row table2/cifar10/rsa-300ep"),
        ("rsa: {config: cifar10/rsa}", "expected a row as TABLE/DATA_SET/ROW, found 'rsa'"),
        ("a/cifar10/rsa: {epochs: 3}", "a/cifar10/rsa: .*'config' is required"),
        ("a/cifar10/rsa: 3", "a/cifar10/rsa: .*expected a section of settings"),
        (
            "table5/coco/rsa: {config: mask_rcnn_R_50_FPN_1x, start: table4/imagenet/rsa-200ep}",
            "table5/coco/rsa starts from unknown row 'table4/imagenet/rsa-200ep'",
        ),
    ],
)
def test_a_malformed_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    """File, row and what is wrong."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"mine.yaml.*{message}"):
        find_rows(path)


def test_rows_are_chosen_by_name_or_by_what_stands_before_it(rows: list[PaperRow]) -> None:
    """A table or a data set stands for all its rows; none comes twice."""
    words = ["table1/cifar10/rsa-decay", "table1/cifar10/", "table8"]
    chosen = [row.name for row in select_rows(rows, words)]
    assert chosen[0] == "table1/cifar10/rsa-decay"
    assert len(chosen) == 4 + 6 == len(set(chosen))


@pytest.mark.parametrize(
    ("word", "near"),
    [("table1/cifar10/rsa-decays", "table1/cifar10/rsa-decay"), ("table1/cifar", "table1/cifar1")],
)
def test_an_unknown_row_is_refused_with_what_comes_near(
    rows: list[PaperRow], word: str, near: str
) -> None:
    """Half a word is no row."""
    with pytest.raises(UserError, match=f"no row '{word}'; similar: .*{near}"):
        select_rows(rows, [word])
