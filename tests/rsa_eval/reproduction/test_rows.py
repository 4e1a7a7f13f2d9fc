"""The catalogue of rows."""

from pathlib import Path

import pytest

from rsa_eval.published import PUBLISHED
from rsa_eval.reproduction.rows import Detection, Pretraining, Row, find_rows, select_rows
from rsa_eval.suite_config import SuiteConfig, load_evaluations
from rsa_pretrain.config_files import load_config, to_tree
from rsa_pretrain.errors import UserError
from rsa_pretrain.recipes import find_recipes, read_quoted_rows

CONFIGS = Path(__file__).parents[3] / "configs"

RECIPE = """\
# rsa-pretrain run configs/pretrain/{data_set}/{name}.yaml
#
{paper}# Effective batch: 256 on one device.
# Measured: not yet.
base: {base}
output_dir: runs/{name}
method: {{beta_base: 0.3}}
training: {{epochs: {epochs}}}
"""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """The toolkit's rows."""
    return find_rows(CONFIGS)


def named(rows: list[Row], name: str) -> Row:
    """The row of this name."""
    (row,) = (row for row in rows if row.name == name)
    return row


def write_recipe(configs: Path, name: str, epochs: int, *papers: str) -> None:
    """Add a recipe of CIFAR-10 to a folder of configs."""
    path = configs / "pretrain" / "cifar10" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    pretrain = CONFIGS / "pretrain"
    base = f"[{pretrain}/methods/resnet18/rsa.yaml, {pretrain}/cifar10/base.yaml]"
    lines = "".join(
        f"# Paper: {paper}, CIFAR-10, {epochs} epochs: linear top-1 92.3\n" for paper in papers
    )
    text = RECIPE.format(data_set="cifar10", name=name, paper=lines, base=base, epochs=epochs)
    path.write_text(text)


def test_every_row_of_the_tables_is_there_once(rows: list[Row]) -> None:
    """Tables 1 to 4 and 8 as the recipes' headers and the quoted lines have them, 5 to 7 whole."""
    recipes = find_recipes(CONFIGS / "pretrain")
    papers = [paper for recipe in recipes for paper in recipe.paper_rows]
    papers += read_quoted_rows(CONFIGS / "pretrain")
    headers = sorted((paper.table, paper.data_set, paper.row, paper.epochs) for paper in papers)
    linear = [row for row in rows if row.table in (1, 2, 3, 4, 8)]
    assert headers == sorted((row.table, row.data_set, row.label, row.epochs) for row in linear)
    of_tables = [cell for cell in PUBLISHED if cell.place is not None]
    timed = [row for row in rows if row.table == 7]
    assert len(timed) == 6
    assert len([row for row in rows if row.table]) == len(of_tables) + len(timed)


def test_names_are_unique_and_safe_for_folders(rows: list[Row]) -> None:
    """Each name is three lower-case words of a path."""
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        table, data_set, name = row.name.split("/")
        assert table == ("study" if row.table is None else f"table{row.table}")
        assert data_set == row.data_set
        assert name
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("name", "published", "recipe", "suite"),
    [
        ("table1/cifar10/rsa-decay", "92.1 ± 0.0", "rsa_decay_beta0.5_200ep", "moco_v2"),
        ("table2/cifar10/rsa-200ep", "92.3 ± 0.1", "rsa_200ep", "moco_v2"),
        ("table3/imagenet100/moco-v2-100ep", "80.9", "moco_v2_100ep", "mean_shift"),
        ("table4/imagenet/byol-300ep", "72.4", "byol_300ep", "mean_shift"),
        ("table7/stl10/rsa", "79.6 h", "rsa_800ep", "moco_v2"),
        ("table8/cifar100/simsiam-rsa", "63.7 ± 0.5", "simsiam_rsa_200ep", "moco_v2"),
    ],
)
def test_a_row_has_its_number_its_recipe_and_its_protocol(
    rows: list[Row], name: str, published: str, recipe: str, suite: str
) -> None:
    """Examples of each table."""
    row = named(rows, name)
    assert row.published == published
    assert isinstance(row.work, Pretraining)
    assert row.work.recipe.path.stem == recipe
    assert row.work.recipe.path.parent.name == row.data_set
    assert row.work.suite.stem == suite


def test_detectors_start_from_rows_of_table_4(rows: list[Row]) -> None:
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
    for row in rows:
        if isinstance(row.work, Detection):
            assert row.work.config.is_file()
    assert named(rows, "table5/coco/rsa").published == "box 41.1, mask 37.3"


def test_methods_that_are_not_here_are_quoted(rows: list[Row]) -> None:
    """Rows without work are baselines of Tables 4 to 6."""
    quoted = {(row.table, row.label) for row in rows if row.work is None}
    baselines = {"InstDis", "PIRL", "MoCo", "InfoMin Aug."}
    assert {label for table, label in quoted if table == 5} == baselines
    assert {table for table, _ in quoted} == {4, 5, 6}


def test_a_run_of_several_tables_has_one_home(rows: list[Row]) -> None:
    """Rows of the same recipe share the folder of the first of them."""
    homes: dict[Path, set[str]] = {}
    for row in rows:
        if isinstance(row.work, Pretraining) and row.work.trained:
            homes.setdefault(row.work.recipe.path, set()).add(row.home)
    assert all(len(names) == 1 for names in homes.values())
    assert named(rows, "table2/cifar10/byol-200ep").home == "table1/cifar10/byol-aa"
    assert named(rows, "table8/cifar100/simsiam").home == "table2/cifar100/simsiam-200ep"
    assert named(rows, "table7/cifar100/byol").home == "table2/cifar100/byol-800ep"
    names = {row.name for row in rows}
    assert {row.home for row in rows} <= names


@pytest.mark.parametrize("suite", ["moco_v2", "mean_shift", "study"])
def test_suites_resolve_with_the_images_of_a_recipe(rows: list[Row], suite: str) -> None:
    """Each has kNN and the linear probe, of the protocol it is named after."""
    recipe = find_recipes(CONFIGS / "pretrain")[0]
    path = CONFIGS / "eval" / "reproduce" / f"{suite}.yaml"
    config = load_config(SuiteConfig, path, start={"data": to_tree(recipe.config.data)})
    evaluations = load_evaluations(config, path.parent, Path("features"))
    assert {evaluation.config.data for evaluation in evaluations} == {recipe.config.data}
    protocol = "moco_v2" if suite == "study" else suite
    assert [evaluation.config.protocol for evaluation in evaluations] == ["weighted_vote", protocol]


def test_a_study_has_its_recipes_and_their_network_untrained(tmp_path: Path) -> None:
    """Recipes called _study are its rows; random weights come with them, once."""
    write_recipe(tmp_path, "rsa_fixed_study", 3)
    write_recipe(tmp_path, "rsa_study", 3)
    study = [row for row in find_rows(tmp_path) if row.table is None]
    names = ["study/cifar10/random", "study/cifar10/rsa", "study/cifar10/rsa-fixed"]
    assert [row.name for row in study] == names
    trained = [row.work.trained for row in study if isinstance(row.work, Pretraining)]
    assert trained == [False, True, True]
    assert [row.epochs for row in study] == [None, 3, 3]


def test_two_rows_of_one_name_are_refused(tmp_path: Path) -> None:
    """Names decide folders."""
    write_recipe(tmp_path, "one", 200, "Table 1, RSA MA decay")
    write_recipe(tmp_path, "two", 200, "Table 1, RSA decay")
    with pytest.raises(UserError, match="two rows are called table1/cifar10/rsa-decay"):
        find_rows(tmp_path)


def test_epochs_stand_where_a_table_has_several_schedules(tmp_path: Path) -> None:
    """A table with one schedule of a data set does not name it."""
    write_recipe(tmp_path, "one", 200, "Table 1, RSA MA decay", "Table 2, RSA")
    write_recipe(tmp_path, "two", 800, "Table 2, RSA")
    names = [row.name for row in find_rows(tmp_path) if row.table in (1, 2)]
    assert names[0] == "table1/cifar10/rsa-decay"
    assert names[1:] == ["table2/cifar10/rsa-200ep", "table2/cifar10/rsa-800ep"]


def test_rows_are_chosen_by_name_or_by_what_stands_before_it(rows: list[Row]) -> None:
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
    rows: list[Row], word: str, near: str
) -> None:
    """Half a word is no row."""
    with pytest.raises(UserError, match=f"no row '{word}'; near it are .*{near}"):
        select_rows(rows, [word])
