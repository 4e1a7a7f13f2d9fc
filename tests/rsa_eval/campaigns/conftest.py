"""A study so small that a row takes seconds."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import narrow
import numpy as np
import pytest
from PIL import Image

from rsa_eval.__main__ import main
from rsa_eval.evaluators.linear.heads import HeadTrainer
from rsa_pretrain.training.trainer import Trainer

STUDY = """\
output_dir: runs/study
data: {name: imagefolder, root: nowhere, image_size: 16, num_workers: 0}
backbone: {arch: resnet18, stem: standard, zero_init_residual: false}
method: {name: rsa, hidden_dim: 16, output_dim: 8, beta_base: 0.3}
optimizer: {base_lr: 0.1, weight_decay: 5.0e-4}
training: {epochs: 2, global_batch_size: 16, checkpoint_every_epochs: 2, keep_checkpoints: 1}
monitor: {log_every_steps: 1}
"""


def make_rows(folder: Path) -> Path:
    """Write the small study, ``study.yaml``, and the table of its two rows."""
    (folder / "study.yaml").write_text(STUDY)
    config = f"config: {folder / 'study.yaml'}"
    path = folder / "rows.yaml"
    path.write_text(
        f"study/imagefolder/rsa: {{{config}}}\n"
        f"study/imagefolder/random: {{{config}, random_init: true}}\n"
    )
    return path


def make_images(root: Path) -> Path:
    """Four classes of random images, eight each for training and two for testing."""
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for name in "abcd":
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def run_command(folder: Path, *words: object, out: str = "out") -> int:
    """Run the command on the rows in a folder, or else the paper's; return its exit code."""
    options = {"--out": out, "--results": "results"}
    if (folder / "rows.yaml").exists():
        options["--rows"] = "rows.yaml"
    places = [part for option, name in options.items() for part in (option, str(folder / name))]
    return main(["reproduce", *places, *map(str, words)])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both rows of the small study were made without a stop, seed 0."""
    folder = tmp_path_factory.mktemp("made")
    make_rows(folder)
    make_images(folder / "data")
    with narrow.narrow_resnets():
        assert run_command(folder, "study", f"data.root={folder / 'data'}") == 0
    return folder


@pytest.fixture
def reproduce() -> Callable[..., int]:
    """Runs the command on a folder with rows and settings; returns its exit code."""
    return run_command


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder in which nothing was made."""
    make_rows(tmp_path)
    make_images(tmp_path / "data")
    return tmp_path


@pytest.fixture
def copied(made: Path, fresh: Path) -> Path:
    """The folder of the study's run, after what was made was copied into the fresh folder."""
    shutil.copytree(made / "out", fresh / "out")
    return fresh / "out/study/imagefolder/rsa/seed-0"


@pytest.fixture
def alarm_in_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the time be up during a step of pretraining."""
    return lambda step: _alarm(monkeypatch, Trainer, "_train_step", step)


@pytest.fixture
def alarm_in_probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the time be up during a step of a linear probe."""
    return lambda step: _alarm(monkeypatch, HeadTrainer, "step", step)


def _alarm(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, step: int) -> None:
    original, calls = getattr(owner, method), []

    def take_step(*arguments: object) -> object:
        calls.append(step)
        if len(calls) == step:
            signal.raise_signal(signal.SIGALRM)
        return original(*arguments)

    monkeypatch.setattr(owner, method, take_step)
