from pathlib import Path

import numpy as np
import pytest

from rsa_eval.published import PUBLISHED
from rsa_pretrain import run_folder
from rsa_pretrain.command_line import Parser
from rsa_pretrain.commands import recipes as recipes_command
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import flatten, load_config, parse_tree, to_tree
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.recipes import find_recipes, read_quoted_rows, read_recipe
from rsa_pretrain.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"
PATHS = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.name != "base.yaml")
TABLES = (1, 2, 3, 4, 8)

HEADER = """\
# rsa-pretrain run configs/pretrain/cifar10/mine.yaml data.root=data
#
# Paper: Table 2, RSA, CIFAR-10, 200 epochs: linear top-1 92.3 ± 0.1
# Effective batch: 256 on one device.
# Measured: not yet.
"""
BODY = """\
base: [../methods/resnet18/rsa.yaml, base.yaml]
output_dir: runs/x
method: {beta_base: 0.3}
training: {epochs: 200}
"""


def name_of(path):
    """Name a test after its recipe."""
    return f"{path.parent.name}/{path.stem}"


def settings_of(path):
    """What decides a step of two images: not its size, the run's length or where files lie."""
    leaves = flatten(to_tree(load_config(PretrainConfig, path)))
    sizes = ("training.epochs", "training.global_batch_size", "optimizer.base_lr")
    places = ("output_dir", "data.name", "data.root")
    return {key: value for key, value in leaves.items() if key not in sizes + places}


def distinct(paths):
    """One path of each group with the same settings."""
    return {repr(settings_of(path)): path for path in reversed(paths)}.values()


def published_cells():
    """The tables' cells as (table, row, data set, epochs, number)."""
    for entry in PUBLISHED:
        paper, _, place = entry.source.partition(", Table ")
        number = place.partition(",")[0]
        if paper != "RSA" or int(number) not in TABLES:
            continue
        row = place.partition("row ")[2].partition(": ")[2] or place.partition("row ")[2]
        data_set = {"imagenet1k": "imagenet"}.get(entry.data_set, entry.data_set)
        (epochs,) = (part for part in entry.setting.split(", ") if part.endswith(" epochs"))
        score = entry.scores["top1"].text.replace(" ", "")
        row = row.replace(", beta", "")
        yield int(number), row, data_set, int(epochs.partition(" ")[0]), score


@pytest.fixture(scope="module")
def recipes():
    """The toolkit's recipes."""
    return find_recipes(CONFIGS)


def test_every_cell_of_the_tables_is_served_once_with_its_number(recipes):
    """Tables 1, 2, 3, 4 and 8: no row missing, none twice, each number as published."""
    cells = list(published_cells())
    assert len(cells) == 20 + 40 + 10 + 16 + 6
    rows = [row for recipe in recipes for row in recipe.paper_rows] + read_quoted_rows(CONFIGS)
    served = [
        (row.table, row.row, row.data_set, row.epochs, row.published.replace(" ", ""))
        for row in rows
    ]
    assert sorted(served) == sorted(cells)


def test_rows_without_a_method_here_are_quoted():
    """Only baselines that this toolkit does not implement go without a config."""
    quoted = {row.row for row in read_quoted_rows(CONFIGS)}
    methods = ("InstDis", "PIRL", "JCL", "ReSSL", "InfoMin Aug.", "W-MSE 4", "SwAV")
    assert quoted == set(methods)


def test_configs_differ_where_their_rows_do(recipes):
    """No two files describe the same run, and each writes to a folder of its own."""
    runs = [repr({**to_tree(recipe.config), "output_dir": None}) for recipe in recipes]
    assert len(set(runs)) == len(recipes)
    assert len({recipe.config.output_dir for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_a_recipe_is_named_after_its_run(path):
    """File name, folder and output folder say the method, the epochs and the data set."""
    config = read_recipe(path).config
    assert config.data.name == path.parent.name
    assert path.stem.startswith(config.method.name)
    if path.stem.endswith("ep"):
        assert path.stem.endswith(f"_{config.training.epochs}ep")
        folder = f"runs/{path.parent.name}-{path.stem}".replace("_", "-")
        assert config.output_dir == Path(folder)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cifar10/rsa_200ep", {"method.beta_base": 0.3, "optimizer.base_lr": 0.1}),
        ("stl10/rsa_800ep", {"method.beta_base": 0.4, "optimizer.weight_decay": 5e-4}),
        ("cifar10/rsa_fixed_200ep", {"method.beta_base": 0.5, "method.beta_mode": "fixed"}),
        (
            "imagenet100/rsa_decay_beta0.5_100ep",
            {"method.beta_base": 0.5, "method.beta_mode": "decay", "method.hidden_dim": 4096},
        ),
        ("imagenet100/byol_aw_100ep", {"method.views": "AW", "optimizer.base_lr": 0.2}),
        ("tiny_imagenet/moco_v2_200ep", {"method.ema_momentum": 0.99, "backbone.stem": "cifar"}),
        (
            "imagenet/rsa_100ep",
            {"optimizer.name": "lars", "optimizer.base_lr": 0.9, "optimizer.weight_decay": 1e-6},
        ),
        (
            "imagenet/rsa_200ep",
            {
                "optimizer.base_lr": 0.6,
                "optimizer.warmup_epochs": 10,
                "training.global_batch_size": 2048,
                "training.sync_batchnorm": True,
                "method.beta_base": 0.4,
            },
        ),
        ("imagenet/simclr_1000ep", {"training.global_batch_size": 4096, "method.temperature": 0.1}),
        (
            "cifar10/rsa_200ep",
            {"backbone.stem_init": "default", "backbone.zero_init_residual": True},
        ),
        ("cifar10/moco_v2_200ep", {"backbone.zero_init_residual": False}),
        ("imagenet/moco_v2_200ep", {"backbone.zero_init_residual": False}),
        ("imagenet/supervised_100ep", {"backbone.zero_init_residual": False}),
        ("cifar10/rsa_decay_study", {"backbone.stem_init": "kaiming"}),
    ],
)
def test_recipes_hold_the_papers_settings(name, settings):
    """Values of Section 4.1, read through every base file."""
    leaves = flatten(to_tree(load_config(PretrainConfig, CONFIGS / f"{name}.yaml")))
    assert {key: leaves[key] for key in settings} == settings


@pytest.mark.parametrize("path", distinct(PATHS), ids=name_of)
def test_every_recipe_takes_two_steps(path, tmp_path, monkeypatch):
    """Each builds at its image size (224 px reduced to 64), and trains on generated images.

    In float32: a CPU takes several times as long in bfloat16.
    """
    # A checkpoint of each would be gigabytes together; saving has tests of its own.
    monkeypatch.setattr(run_folder, "save_checkpoint", lambda *_: None)
    monkeypatch.setattr(run_folder, "save_tensors", lambda *_: None)
    tree = to_tree(load_config(PretrainConfig, path))
    tree["output_dir"] = str(tmp_path / "run")
    tree["data"] |= {"image_size": min(64, tree["data"]["image_size"]), "num_workers": 0}
    tree["optimizer"]["warmup_epochs"] = min(0.5, tree["optimizer"]["warmup_epochs"])
    short = {"epochs": 1, "global_batch_size": 2, "precision": "fp32", "device": "cpu"}
    tree["training"] |= short
    config = parse_tree(PretrainConfig, tree, "")
    side = config.data.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    num_classes = tree["method"].get("num_classes", 2)
    classes = [str(number) for number in range(num_classes)]
    images = ImageSet.from_array("generated", pixels, [0, 1, 0, 1], classes)
    trainer = Trainer(config, images, resume=False)
    before = [tensor.clone() for tensor in trainer.state.method.backbone.parameters()]
    assert trainer.run() == 0
    assert trainer.state.step == 2
    after = trainer.state.method.backbone.parameters()
    assert any(not old.equal(new) for old, new in zip(before, after, strict=True))
    assert trainer.state.first_non_finite() is None


@pytest.fixture
def recipe_path(tmp_path):
    """A recipe like the toolkit's own, with its base files, to spoil at will."""
    for shared in ("cifar10/base.yaml", "methods/resnet18/base.yaml", "methods/resnet18/rsa.yaml"):
        target = tmp_path / shared
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((CONFIGS / shared).read_text())
    path = tmp_path / "cifar10" / "mine.yaml"
    path.write_text(HEADER + BODY)
    return path


def test_a_header_is_read(recipe_path):
    """Command, rows and measured number; notes behind a header are left alone."""
    measured = HEADER.replace("not yet", "linear top-1 92.1 ± 0.1 (3 seeds, one H200)")
    second = HEADER.splitlines()[2].replace("Table 2, RSA", "Table 1, RSA MA, decay")
    recipe_path.write_text(f"{measured}{second}\n#\n# A note.\n{BODY}")
    recipe = read_recipe(recipe_path)
    assert recipe.command == HEADER.splitlines()[0].removeprefix("# ")
    assert recipe.measured == "linear top-1 92.1 ± 0.1 (3 seeds, one H200)"
    first, second = recipe.paper_rows
    assert (first.table, first.row, first.epochs, first.published) == (2, "RSA", 200, "92.3 ± 0.1")
    assert (second.table, second.row, second.data_set) == (1, "RSA MA, decay", "cifar10")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# rsa-pretrain run", "# train", r"mine.yaml line 1: expected its command, .*'train con"),
        ("mine.yaml", "other.yaml", "mine.yaml line 1: expected a command that names this file"),
        (HEADER, "", "mine.yaml line 1: expected its command, .*found ''"),
        ("Paper: Table 2", "Paper Table 2", "mine.yaml line 3: expected 'Paper: …'"),
        ("Table 2, RSA", "Table two, RSA", "mine.yaml line 3: expected 'Table N, ROW"),
        ("± 0.1", "+- 0.1", "mine.yaml line 3: expected 'Table N, ROW"),
        ("CIFAR-10,", "CIFAR,", "mine.yaml line 3: expected a data set of CIFAR-10, CIFAR-100"),
        ("CIFAR-10,", "STL-10,", "line 3: expected the config's own 'cifar10, 200 epochs'"),
        ("epochs: 200", "epochs: 300", "line 3: expected the config's own 'cifar10, 300 epochs'"),
        ("256 on one device", "some", "mine.yaml line 4: expected 'N on one device.'"),
        ("256 on", "512 on", "mine.yaml line 4: expected training.global_batch_size 256"),
        (
            "# Effective batch: 256 on one device.\n",
            "",
            r"\(lines 1 to 4\) has 0 .*Effective batch",
        ),
        ("# Measured: not yet.\n", "", r"\(lines 1 to 4\) has 0 lines '# Measured: …'"),
        ("# Measured: not yet.\n", "# Measured: 1\n# Measured: 2\n", "has 2 lines '# Measured: …'"),
        ("# Measured: not yet.", "# Measured:", "mine.yaml line 5: expected 'Measured: …'"),
    ],
)
def test_a_malformed_header_is_named(recipe_path, old, new, message):
    """File, line, what was found and what was expected; a header cannot contradict its config."""
    text = recipe_path.read_text()
    assert old in text
    recipe_path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_recipe(recipe_path)


def test_a_malformed_quoted_row_is_named(tmp_path):
    """The list of quoted rows is held to the same form."""
    path = tmp_path / "quoted.txt"
    path.write_text("# Quoted.\nPaper: Table 4, SwAV, ImageNet-1K, 200 epochs: linear top-1 69\n")
    with pytest.raises(UserError, match=r"quoted\.txt line 2: expected 'Table N, ROW"):
        read_quoted_rows(tmp_path)
    path.write_text("SwAV\n")
    with pytest.raises(UserError, match=r"quoted\.txt line 1: expected 'Paper: …', found 'SwAV'"):
        read_quoted_rows(tmp_path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="it is not UTF-8 text"):
        read_quoted_rows(tmp_path)


def test_a_folder_without_recipes_is_refused(tmp_path):
    """A wrong folder is no empty table."""
    with pytest.raises(UserError, match=r"holds no recipes; expected .*/DATA_SET/NAME\.yaml"):
        find_recipes(tmp_path)


def list_recipes(*words):
    """Run the command."""
    parser = Parser(prog="rsa-pretrain")
    recipes_command.add(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["recipes", "--configs", str(CONFIGS), *words])
    return arguments.command(arguments)


@pytest.mark.parametrize("table_format", ["text", "markdown", "csv"])
def test_the_command_lists_every_row_by_table(recipes, capsys, table_format):
    """One line per cell of the tables, in their order, then the configs beyond them."""
    assert list_recipes("--format", table_format) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "---" not in line]
    tables = [line.partition("Table ")[2][:1] for line in lines[1:]]
    assert tables == sorted(tables, key=lambda table: table or "9")
    assert len([table for table in tables if table]) == 92
    beyond = len([recipe for recipe in recipes if not recipe.paper_rows])
    assert tables.count("") == beyond


def test_filters_leave_the_rows_asked_for(capsys):
    """--table, --data-set and --method narrow the list; nothing left is a mistake."""
    list_recipes("--table", "2", "--data-set", "cifar10", "--method", "rsa", "--format", "csv")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("config,method,data set,epochs,batch,optimizer,paper")
    name = CONFIGS / "cifar10"
    assert rows == [
        f'{name}/rsa_200ep.yaml,rsa,cifar10,200,256,sgd,"Table 2, RSA",92.3 ± 0.1,not yet',
        f'{name}/rsa_800ep.yaml,rsa,cifar10,800,256,sgd,"Table 2, RSA",93.7,not yet',
    ]
    with pytest.raises(UserError, match="no recipe matches"):
        list_recipes("--table", "3", "--data-set", "cifar10")
