"""Test the log that both engines write alike while they train."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from detection.coco.evaluation import Evaluation, Prediction, evaluate_in_detail
from detection.job import evaluations
from detection.job.job import Job, open_job
from detection.job.training_log import TrainingLog
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.plumbing import meter
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import read_metrics

pytestmark = pytest.mark.usefixtures("narrow_detector")

MakeRecipe = Callable[..., Recipe]
LOSSES = {"loss", "loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
RATES = {"lr", "images_per_second", "data_wait", "seconds_per_iteration", "eta_seconds"}

engines = pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the rates; it moves only when ``clock.now`` is changed."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def _run(recipe: Recipe, *, resume: bool = False) -> int:
    return run_recipe(recipe, random_trunk(recipe.model, 0), resume=resume)[0]


def _lines(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    lines = read_metrics(recipe.output_dir / "metrics.jsonl")
    return [line for line in lines if name in line]


@engines
def test_lines_of_both_engines(
    make_recipe: MakeRecipe,
    clock: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    """Four steps of one second, each followed by an evaluation of 1000, which no rate has in it."""
    add_step = TrainingLog.add_step

    def step_in_a_second(self: TrainingLog, step: int, metrics: Mapping[str, float]) -> None:
        clock.now += 1
        add_step(self, step, metrics)

    def evaluate_long(*arguments: Any) -> Evaluation:
        clock.now += 1000
        return evaluate_in_detail(*arguments)

    monkeypatch.setattr(TrainingLog, "add_step", step_in_a_second)
    monkeypatch.setattr(evaluations, "evaluate_in_detail", evaluate_long)
    recipe = make_recipe(
        engine=engine, training={"log_every_iterations": 1, "evaluate_every_iterations": 1}
    )
    assert _run(recipe) == 0
    lines = _lines(recipe, "loss")
    assert [set(line) for line in lines] == [{"step", *LOSSES, *RATES}] * 4
    assert [(line["step"], line["eta_seconds"]) for line in lines] == [
        (1, 3.0),
        (2, 2.0),
        (3, 1.0),
        (4, 0.0),
    ]
    for line in lines:
        assert line["seconds_per_iteration"] == 1
        assert line["images_per_second"] == recipe.solver.batch_size
        assert line["data_wait"] == 0
        assert line["loss"] == pytest.approx(sum(line[name] for name in LOSSES - {"loss"}))
    lr, factor = recipe.solver.base_lr, recipe.solver.warmup_factor
    expected = pytest.approx([lr * factor, lr * (1 + factor) / 2, lr, lr / 10])
    assert [line["lr"] for line in lines] == expected
    assert [line["step"] for line in _lines(recipe, "segm_AP")] == [1, 2, 3, 4]
    assert all("loss" not in line for line in _lines(recipe, "segm_AP"))


@engines
def test_stop_between_two_lines_loses_no_step(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Lines of two steps, stopped after the third and resumed: means of 1 and 2, of 3, of 4."""
    whole = make_recipe(
        engine=engine, output_dir=str(tmp_path / "whole"), training={"log_every_iterations": 1}
    )
    assert _run(whole) == 0
    single = [line["loss"] for line in _lines(whole, "loss")]
    add_step = TrainingLog.add_step

    def stop_after_three(self: TrainingLog, step: int, metrics: Mapping[str, float]) -> None:
        add_step(self, step, metrics)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe = make_recipe(engine=engine, training={"log_every_iterations": 2})
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "add_step", stop_after_three)
        assert _run(recipe) == 128 + signal.SIGTERM
    assert [line["step"] for line in _lines(recipe, "loss")] == [2, 3]
    assert _run(recipe, resume=True) == 0
    lines = [(line["step"], line["loss"]) for line in _lines(recipe, "loss")]
    assert [step for step, _ in lines] == [2, 3, 4]
    expected = pytest.approx([(single[0] + single[1]) / 2, single[2], single[3]], rel=1e-12)
    assert [loss for _, loss in lines] == expected


@engines
def test_every_evaluation_counts_what_the_detector_keeps(
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    engine: str,
) -> None:
    """On the way and at the end up to 120; what that means is said once, and is in the record."""
    limits: list[int] = []

    def evaluate_and_look(
        tree: Mapping[str, Any],
        predictions: Sequence[Prediction],
        iou_types: Sequence[str],
        max_detections: int,
    ) -> Evaluation:
        limits.append(max_detections)
        return evaluate_in_detail(tree, predictions, iou_types, max_detections)

    monkeypatch.setattr(evaluations, "evaluate_in_detail", evaluate_and_look)
    recipe = make_recipe(
        engine=engine,
        sampling={"detections_per_image": 120},
        training={"evaluate_every_iterations": 1},
    )
    with caplog.at_level("WARNING"):
        _, record = run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    assert limits == [120] * 4
    note = "average precision counts 120 detections an image and category, where COCO's counts 100"
    assert [text for text in caplog.messages if note in text] == [f"iteration 1: {note}"]
    assert record is not None
    assert record.deviations.count(note) == 1


def test_rates_by_hand(make_recipe: MakeRecipe, tmp_path: Path, clock: SimpleNamespace) -> None:
    """Two steps of 2 s, half a second of each spent waiting; 10 s between them do not count."""
    recipe = make_recipe(training={"log_every_iterations": 2})
    job = open_job(recipe, random_trunk(recipe.model, 0))

    def slow_batches() -> Any:
        while True:
            clock.now += 0.5
            yield []

    with TrainingLog(job, tmp_path, 0) as log:
        batches = log.timed(slow_batches())
        for step in (1, 2):
            next(batches)
            clock.now += 1.5
            log.add_step(step, {"loss": float(step), "lr": 0.1})
            with log.paused():
                clock.now += 10
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert line == {
        "step": 2,
        "loss": 1.5,
        "lr": pytest.approx(0.1),
        "seconds_per_iteration": 2.0,
        "images_per_second": 1.0,
        "data_wait": 0.25,
        "eta_seconds": 4.0,
    }


def test_tensors_are_read_with_the_line(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, and with the same means as numbers have, bitwise."""
    recipe = make_recipe(training={"log_every_iterations": 2})
    job = open_job(recipe, random_trunk(recipe.model, 0))
    losses = torch.rand(4)
    for name, convert in (("tensors", torch.clone), ("numbers", float)):
        run_dir = tmp_path / name
        run_dir.mkdir()
        with TrainingLog(job, run_dir, 0) as log:
            for step, loss in enumerate(losses, start=1):
                entry = {"loss": convert(loss), "lr": 0.1 * step}
                with monkeypatch.context() as patch:
                    if step % 2:
                        patch.setattr(torch, "stack", _refused)
                    log.add_step(step, entry)
    tensors, numbers = (
        [(line["step"], line["loss"], line["lr"]) for line in read_metrics(path)]
        for path in (tmp_path / "tensors" / "metrics.jsonl", tmp_path / "numbers" / "metrics.jsonl")
    )
    assert tensors == numbers
    assert [step for step, _, _ in tensors] == [2, 4]


def test_the_first_loss_that_is_not_finite_is_named(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """When the line is due, or when the log catches up; the iterations before it are written."""
    recipe = make_recipe(training={"log_every_iterations": 4})
    job = open_job(recipe, random_trunk(recipe.model, 0))
    losses = [2.0, 3.0, float("inf"), float("nan")]
    for name, count in (("due", 4), ("caught up", 3)):
        run_dir = tmp_path / name
        run_dir.mkdir()
        message = rf"the loss is inf at iteration 2; .*'{run_dir}'; lower solver\.base_lr"
        with pytest.raises(UserError, match=message):
            _log_losses(job, run_dir, losses[:count])
        (line,) = read_metrics(run_dir / "metrics.jsonl")
        assert (line["step"], line["loss"]) == (2, 2.5)


def test_an_error_is_not_replaced_by_the_loss(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Iterations before it are written; one whose loss is not finite is left out."""
    recipe = make_recipe()
    job = open_job(recipe, random_trunk(recipe.model, 0))
    with pytest.raises(KeyError, match="broken"):
        _log_losses(job, tmp_path, [2.0, float("nan")], error=KeyError("broken"))
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (line["step"], line["loss"]) == (1, 2.0)


def _log_losses(
    job: Job, run_dir: Path, losses: Sequence[float], error: Exception | None = None
) -> None:
    with TrainingLog(job, run_dir, 0) as log:
        for step, loss in enumerate(losses, start=1):
            log.add_step(step, {"loss": torch.tensor(loss)})
        if error is not None:
            raise error
        log.catch_up()


def _refused(*_: Any) -> Any:
    raise AssertionError("read too early")


def test_memory_of_a_gpu(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak memory that torch reserved on the device, in GiB."""
    recipe = make_recipe(training={"log_every_iterations": 1})
    job = replace(open_job(recipe, random_trunk(recipe.model, 0)), device=torch.device("cuda", 0))
    taken = {torch.device("cuda", 0): 3 * 2**30}
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", taken.__getitem__)
    monkeypatch.setattr(meter, "_now", lambda _: time.monotonic())
    with TrainingLog(job, tmp_path, 0) as log:
        log.add_step(1, {"loss": 1.0})
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert line["gpu_memory_gib"] == 3.0
