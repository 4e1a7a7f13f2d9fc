"""The shipped configs: named, summarised, free of contradictions, and their commands work."""

import json
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from detection.recipe.recipe import Recipe
from rsa_eval.campaigns.reproduction import plan_trial
from rsa_eval.campaigns.settings import SuiteConfig, load_evaluations
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.paper.rows import Pretraining, find_rows, select_rows
from rsa_pretrain.__main__ import main
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import Section, flatten, load_config, parse_tree, to_tree
from rsa_pretrain.plumbing.config.shipped import FOLDER, find_config, shipped_configs
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training import run_folder
from rsa_pretrain.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
NAMES = list(shipped_configs())
RUNS = [
    name for name, path in shipped_configs().items() if path.is_relative_to(FOLDER / "pretrain")
]
PLACES = ("root", "train_annotations", "train_images", "test_annotations", "test_images")
PROGRAMS = {"rsa_pretrain": "rsa-pretrain", "rsa_eval": "rsa-eval", "detection": "rsa-detect"}

ON_RECORD = json.loads((ROOT / "tests/golden/resolved_settings.json").read_text(encoding="utf-8"))
RESULTS = ("output_dir", "cache_dir")
ROWS = {row.name: row for row in find_rows() if row.work is not None}


def test_every_config_has_a_name_of_its_own() -> None:
    """No two files answer to one name."""
    assert len(NAMES) == len(list(FOLDER.rglob("*.yaml")))


@pytest.mark.parametrize("name", NAMES)
def test_a_config_opens_with_what_it_is(name: str) -> None:
    """The first line is a sentence for the list of configs."""
    line = shipped_configs()[name].read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# [A-Z0-9].*\.|# scikit-learn.*\.", line)
    assert len(line) <= 102


@pytest.mark.parametrize("name", NAMES)
def test_only_data_blocks_say_where_images_lie(name: str) -> None:
    """No config beside them has a place of images, and none types a run's folder."""
    tree = yaml.safe_load(shipped_configs()[name].read_text(encoding="utf-8")) or {}
    keys = {key.rpartition(".")[2] for key in flatten(tree)}
    assert name.startswith("data/") or not keys & set(PLACES)
    assert "output_dir" not in keys


@cache
def run_folders() -> dict[str, PretrainConfig]:
    """Every folder that a shipped config or a row of the paper writes, with its run."""
    runs = [load_config(PretrainConfig, Path(name)) for name in RUNS]
    works = [row.work for row in find_rows()]
    runs += [work.config for work in works if isinstance(work, Pretraining)]
    return {str(run.output_dir): run for run in reversed(runs)}


def commands_of(name: str) -> list[list[str]]:
    """The commands in a config's header, as words."""
    lines = []
    for line in shipped_configs()[name].read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#"))
    text = "\n".join(lines).replace("\\\n", " ")
    found = re.findall(r"^ {3}((?:rsa-|torchrun ).*)$", text, flags=re.MULTILINE)
    return [shlex.split(command) for command in found]


def dry_run(words: list[str]) -> None:
    """Resolve all that a command names; a run's folder must be one that a config writes."""
    if words[0] == "torchrun":
        module = words.index("-m")
        words = [PROGRAMS[words[module + 1]], *words[module + 2 :]]
    program, command, *rest = words
    overrides = [word for word in rest if re.match(r"[a-z_.]+=", word)]
    options = dict(pairwise(rest))
    folders = [
        run_folders()[word] for word in rest if word.startswith("runs/") and "/records/" not in word
    ]
    if command == "run":
        load_config(PretrainConfig, Path(rest[0]), overrides)
    elif command == "reproduce":
        assert select_rows(find_rows(), [rest[0]])
    elif command == "suite":
        suite = load_config(SuiteConfig, Path(options["--suite"]), overrides)
        assert load_evaluations(suite, Path(), Path("features"))
        assert folders
    elif program == "rsa-detect" and command == "train":
        load_config(Recipe, Path(rest[0]), overrides)
    elif command in EVALUATORS:
        (run,) = folders
        start = {"data": to_tree(run.data)}
        load_config(EVALUATORS[command].config, Path(options["--config"]), overrides, start)
    else:
        assert (program, command) == ("rsa-detect", "toy")


WITH_COMMANDS = [name for name in NAMES if commands_of(name)]


def test_whatever_can_be_run_says_how() -> None:
    """Only parts of configs go without a command."""
    parts = ("data/", "methods/", "parts/", "base_")
    assert all(name.startswith(parts) for name in NAMES if name not in WITH_COMMANDS)


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_commands_of_a_header_work(name: str) -> None:
    """Each loads, and one of them names the config itself."""
    commands = commands_of(name)
    for words in commands:
        dry_run(words)
    named = {find_config(Path(word)) for words in commands for word in words if word in NAMES}
    exempt = name == "paper" or name.startswith("reproduce/")
    assert exempt or shipped_configs()[name] in named


def test_a_command_that_names_no_run_is_noticed() -> None:
    """The check of headers can fail."""
    with pytest.raises(KeyError, match="runs/nowhere"):
        dry_run(["rsa-eval", "knn", "runs/nowhere", "--config", "knn/dino"])
    with pytest.raises(UserError, match=r"config 'knn/dinos'.*knn/dino"):
        dry_run(["rsa-eval", "knn", "runs/cifar10-rsa-200ep", "--config", "knn/dinos"])


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("cifar10/rsa", "backbone.zero_init_residual", True),
        ("tiny_imagenet/moco_v2", "method.ema_momentum", 0.99),
    ],
)
def test_defaults_are_the_papers_settings(name: str, key: str, value: object) -> None:
    """The record of resolved settings leaves defaults out."""
    assert flatten(to_tree(load_config(PretrainConfig, Path(name))))[key] == value


def decisive(name: str) -> str:
    """Settings that decide a step of two images: not its size, the run's length or file paths."""
    leaves = flatten(to_tree(load_config(PretrainConfig, Path(name))))
    left_out = ("training.epochs", "training.global_batch_size", "optimizer.base_lr")
    left_out += ("output_dir", "data.name", "data.root")
    return repr({key: value for key, value in leaves.items() if key not in left_out})


@pytest.mark.usefixtures("narrow_resnets")
@pytest.mark.parametrize("name", {decisive(name): name for name in reversed(RUNS)}.values())
def test_every_config_takes_two_steps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trains a narrow network on generated images of 32 px.

    In float32: a CPU takes several times as long in bfloat16.
    """
    # Checkpoints of all would take gigabytes; saving has separate tests.
    monkeypatch.setattr(run_folder, "save_checkpoint", lambda *_: None)
    monkeypatch.setattr(run_folder, "save_tensors", lambda *_: None)
    tree = to_tree(load_config(PretrainConfig, Path(name)))
    tree["output_dir"] = str(tmp_path / "run")
    tree["data"] |= {"image_size": 32, "num_workers": 0}
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


def test_names_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a command and in base:; a file in the way is taken first."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("base: cifar10/rsa\ntraining: {epochs: 7}\n")
    mine = load_config(PretrainConfig, Path("mine.yaml"))
    assert (mine.training.epochs, mine.method.beta_base) == (7, 0.3)
    assert mine.output_dir == Path("runs/cifar10-rsa-7ep")
    Path("cifar10").mkdir()
    Path("cifar10/rsa").write_text("base: digits/rsa\nseed: 5\n")
    assert load_config(PretrainConfig, Path("cifar10/rsa")).seed == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar1/rsa", r"config 'cifar1/rsa': no such file.* nearest are cifar10/rsa"),
        ("mask_rcnn_R_50_FPN_3x", r"nearest are mask_rcnn_R_50_FPN_[12]x"),
        (".", r"cannot read config '\.': not a file"),
    ],
)
def test_a_wrong_name_lists_the_nearest(name: str, message: str) -> None:
    """A misspelt name, or a folder."""
    with pytest.raises(UserError, match=message):
        load_config(PretrainConfig, Path(name))


def test_the_command_configs_lists_names(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, those that hold a word, or those of a glob; none is an error."""
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert main(["configs", "rsa"]) == 0
    assert all("rsa" in line.split()[0] for line in capsys.readouterr().out.splitlines()[1:])
    assert main(["configs", "stl10/*"]) == 0
    found = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert found == {name for name in NAMES if name.startswith("stl10/")}
    assert main(["configs", "cifr"]) == 2
    assert re.search(
        r"^error: no shipped config matches 'cifr'; the nearest are .*cifar",
        capsys.readouterr().err,
    )


def test_the_command_config_tells_where_values_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed YAML resolves to the same run; sources are files, words and defaults."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("base: cifar10/rsa\nmethod: {beta_base: 0.4}\n")
    words = ["training.epochs=800", "views.weak={crop_scale: [0.3, 1]}"]
    assert main(["config", "mine.yaml", *words]) == 0
    text = capsys.readouterr().out
    sources = {line.split(":")[0].strip(): line.rpartition("  # ")[2] for line in text.splitlines()}
    assert sources["beta_base"] == "mine.yaml"
    assert sources["image_size"] == "data/cifar10"
    assert sources["hidden_dim"] == "methods/resnet18/rsa"
    assert sources["epochs"] == sources["crop_scale"] == "command line"
    assert sources["sync_batchnorm"] == "default"
    Path("printed.yaml").write_text(text)
    printed = load_config(PretrainConfig, Path("printed.yaml"))
    assert printed == load_config(PretrainConfig, Path("mine.yaml"), words)


def test_the_programs_of_slurm_take_a_name() -> None:
    """The batch script passes its words on, and its header names a config."""
    text = (FOLDER / "slurm" / "pretrain.sbatch").read_text()
    (words,) = re.findall(r"^# sbatch \S+ (.*)$", text, flags=re.MULTILINE)
    dry_run(["rsa-pretrain", "run", *shlex.split(words)])


def settings(section: Section) -> dict[str, object]:
    """The settings that differ from the defaults, except where results are stored."""
    leaves = flatten(section.model_dump(mode="json", exclude_defaults=True))
    return {key: value for key, value in leaves.items() if key not in RESULTS}


def test_every_row_and_suite_is_on_record() -> None:
    """None was lost, none is unchecked."""
    assert set(ROWS) == set(ON_RECORD["rows"])
    suites = {path.stem for path in (FOLDER / "eval").glob("*.yaml")}
    assert suites == set(ON_RECORD["suites"])


@pytest.mark.parametrize("name", ON_RECORD["rows"])
def test_rows_resolve_to_what_is_on_record(name: str) -> None:
    """A run and its evaluations, or a detector and its start."""
    row, expected = ROWS[name], ON_RECORD["rows"][name]
    if isinstance(row.work, Pretraining):
        trial = plan_trial(row, 0, Path("out"), [])
        found = {entry.name: settings(entry.config) for entry in trial.evaluations}
        assert settings(row.work.config) == expected["run"]
        assert found == expected["evaluations"]
    else:
        recipe = settings(load_config(Recipe, row.work.config))
        recipe.pop("name")
        assert (recipe, row.work.start) == (expected["run"], expected["start"])


@pytest.mark.parametrize("name", ON_RECORD["suites"])
def test_suites_resolve_to_what_is_on_record(name: str) -> None:
    """Each evaluation with its images."""
    suite = load_config(SuiteConfig, Path(name))
    evaluations = load_evaluations(suite, Path(), Path("features"))
    found = {entry.name: settings(entry.config) for entry in evaluations}
    assert found == ON_RECORD["suites"][name]


@pytest.mark.parametrize("name", ON_RECORD["configs"])
def test_other_configs_resolve_to_what_is_on_record(name: str) -> None:
    """The demo's, one for a user's own images, and the toy detectors'."""
    model = Recipe if name.startswith("toy") else PretrainConfig
    config = load_config(model, Path(name))
    assert settings(config) == ON_RECORD["configs"][name]
