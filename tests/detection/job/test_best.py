"""The weights with the highest average precision, beside the checkpoints of both engines."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from detection.__main__ import main
from detection.coco.evaluation import Evaluation, evaluate_in_detail
from detection.exchange.trained import read_trained
from detection.job import evaluations
from detection.job.best import Best, keep_best, read_best
from detection.job.run_checkpoints import newest_checkpoint
from detection.job.training_log import TrainingLog
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_eval.records.record import Record
from rsa_pretrain.weights.metadata import METADATA_KEY

pytestmark = pytest.mark.usefixtures("narrow_detector")

MakeRecipe = Callable[..., Recipe]
SetPrecision = Callable[..., None]
BEST = {
    "torchvision": "checkpoints/best/model.safetensors",
    "detectron2": "checkpoints/model_best.pth",
}
EVERY = {"evaluate_every_iterations": 1, "checkpoint_every_iterations": 1}

engines = pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)


@pytest.fixture
def set_precision(monkeypatch: pytest.MonkeyPatch) -> SetPrecision:
    """Return a function that gives the next evaluations of runs these mask APs."""

    def set_precision(*values: float) -> None:
        following = iter(values)

        def evaluate(*arguments: Any) -> Evaluation:
            found = evaluate_in_detail(*arguments)
            return replace(found, metrics=found.metrics | {"segm_AP": next(following)})

        monkeypatch.setattr(evaluations, "evaluate_in_detail", evaluate)

    return set_precision


def _run(recipe: Recipe, *, resume: bool = False) -> Record | None:
    return run_recipe(recipe, random_trunk(recipe.model, 0), resume=resume)[1]


def _checkpoint(recipe: Recipe, step: int) -> Path:
    """Return the checkpoint that an engine writes after so many iterations."""
    name = f"step-{step:08d}" if recipe.engine == "torchvision" else f"model_{step - 1:07d}.pth"
    return recipe.output_dir / "checkpoints" / name


def _assert_same_detector(first: Path, second: Path) -> None:
    one, two = read_trained(first), read_trained(second)
    assert one.card == two.card
    assert one.metadata.step == two.metadata.step
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, two.tensors[name]), name


@pytest.mark.full_width
@engines
def test_best_weights_stay_beside_the_last(
    make_recipe: MakeRecipe, set_precision: SetPrecision, engine: str, tmp_path: Path
) -> None:
    """AP 10, 30, 30 and 20: the second iteration's are the best, the record is of the fourth's.

    They are a detector for ``predict`` and ``convert``, with the classes' names.
    """
    set_precision(10.0, 30.0, 30.0, 20.0)
    recipe = make_recipe(engine=engine, training={**EVERY, "keep_checkpoints": None})
    record = _run(recipe)
    assert record is not None
    assert record.metrics["segm_AP"].value == 20
    told = {key: value for key, value in record.details.items() if key.startswith("best_")}
    assert told == {
        "best_step": 2,
        "best_AP": 30.0,
        "best_metric": "segm_AP",
        "best_file": BEST[engine],
        "best_note": "selected on its own test images, so not a test result",
    }
    best = recipe.output_dir / BEST[engine]
    _assert_same_detector(best, _checkpoint(recipe, 2))
    last = newest_checkpoint(recipe.output_dir)
    assert last is not None
    assert read_trained(last).metadata.step == 4
    assert read_trained(best).card.names == {1: "circle", 2: "rectangle", 3: "triangle"}

    data = recipe.data
    words = [best, data.test_annotations, data.test_images, tmp_path / "found.json"]
    assert main(["predict", *map(str, words)]) == 0
    assert (tmp_path / "found.json").is_file()
    other = tmp_path / f"other{'.pth' if engine == 'torchvision' else '.safetensors'}"
    assert main(["convert", "--model", str(best), str(other)]) == 0
    assert read_trained(other).card == read_trained(best).card


@engines
def test_best_weights_survive_a_resumed_run(
    make_recipe: MakeRecipe,
    set_precision: SetPrecision,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    """Stopped after 10, 30 and 20, it ends at 25; the second iteration's weights are as they were.

    Of the checkpoints one is kept. Where the last weights are the best, they are both.
    """
    recipe = make_recipe(engine=engine, training={**EVERY, "keep_checkpoints": 1})
    best = recipe.output_dir / BEST[engine]
    add_step = TrainingLog.add_step

    def stop_after_three(self: TrainingLog, step: int, metrics: Mapping[str, float]) -> None:
        add_step(self, step, metrics)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    set_precision(10.0, 30.0, 20.0)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "add_step", stop_after_three)
        assert _run(recipe) is None
    content = best.read_bytes()
    assert read_best(best) == Best(step=2, metric="segm_AP", value=30.0)
    assert newest_checkpoint(recipe.output_dir) == _checkpoint(recipe, 3)
    assert not _checkpoint(recipe, 2).exists()

    set_precision(25.0)
    record = _run(recipe, resume=True)
    assert record is not None
    assert record.details["best_step"] == 2
    assert best.read_bytes() == content

    set_precision(35.0)
    record = _run(recipe, resume=True)
    assert record is not None
    assert record.details["best_step"] == 4
    last = newest_checkpoint(recipe.output_dir)
    assert last is not None
    _assert_same_detector(best, last)


@engines
def test_broken_best_weights_are_replaced(
    make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture, engine: str
) -> None:
    """A truncated file is named, and the run ends as without it."""
    solver = {"iterations": 1, "decay_at": [], "warmup_iterations": 0}
    recipe = make_recipe(engine=engine, solver=solver, training=EVERY)
    _run(recipe)
    best = recipe.output_dir / BEST[engine]
    content = best.read_bytes()
    best.write_bytes(content[:-1000])
    with caplog.at_level("WARNING"):
        record = _run(recipe, resume=True)
    (warning,) = [text for text in caplog.messages if str(best) in text]
    assert warning.startswith(f"cannot compare with the best weights so far, '{best}': ")
    assert record is not None
    assert record.details["best_step"] == 1
    last = newest_checkpoint(recipe.output_dir)
    assert last is not None
    _assert_same_detector(best, last)


def test_without_evaluations_on_the_way_there_are_none(make_recipe: MakeRecipe) -> None:
    """The final weights alone are not kept as the best."""
    recipe = make_recipe(solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0})
    record = _run(recipe)
    assert record is not None
    assert not [key for key in record.details if key.startswith("best_")]
    assert not (recipe.output_dir / BEST["torchvision"]).exists()


def _write_own(file: Path, notes: dict[str, str]) -> None:
    save_file({"weight": torch.zeros(3)}, file, {METADATA_KEY: "{}", **notes})


def _write_detectron2(file: Path, notes: dict[str, str]) -> None:
    torch.save({"model": {"weight": torch.zeros(3)}, "rsa_toolkit": notes}, file)


formats = pytest.mark.parametrize(
    ("name", "write"), [("a.safetensors", _write_own), ("a.pth", _write_detectron2)]
)


@formats
def test_file_says_what_it_is_the_best_of(tmp_path: Path, name: str, write: Any) -> None:
    """Only higher values of the same metric replace it; another metric's cannot be compared."""
    file = tmp_path / name
    saved: list[int] = []

    def save(step: int, file: Path, notes: dict[str, str]) -> None:
        saved.append(step)
        write(file, notes)

    assert read_best(file) is None
    for step, value in enumerate((1.0, 0.5, 1.0, 1.5), start=1):
        keep_best(file, Best(step=step, metric="segm_AP", value=value), save)
    assert saved == [1, 4]
    assert read_best(file) == Best(step=4, metric="segm_AP", value=1.5)
    keep_best(file, Best(step=5, metric="bbox_AP", value=0.1), save)
    assert read_best(file) == Best(step=5, metric="bbox_AP", value=0.1)


@formats
@pytest.mark.parametrize(
    "notes", [{}, {"rsa_best": "no JSON"}, {"rsa_best": "[]"}, {"rsa_best": '{"step": 0}'}]
)
def test_file_that_does_not_say_so_is_one_warning(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    write: Any,
    notes: dict[str, str],
) -> None:
    """A damaged note of any kind raises nothing."""
    file = tmp_path / name
    write(file, notes)
    assert read_best(file) is None
    (warning,) = caplog.messages
    assert warning.startswith(f"cannot compare with the best weights so far, '{file}': ")
