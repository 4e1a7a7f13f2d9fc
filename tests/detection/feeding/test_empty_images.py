"""Training on images without objects, kept on request."""

import json
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from detection.engines.torchvision import trainer
from detection.engines.torchvision.run_state import DetectorState
from detection.exchange.export_config import export_config
from detection.feeding.samples import TrainingSample, TrainingStream
from detection.job.job import open_job
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_detector")

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("boxes_only", [False, True])
@pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)
def test_mostly_empty_set_trains(
    make_recipe: MakeRecipe, sparse_data: dict[str, Any], engine: str, boxes_only: bool
) -> None:
    """With single images as batches, also in precise BN, every loss is finite and AP is found."""
    recipe = make_recipe(
        engine=engine,
        data=sparse_data,
        model={"mask_head": not boxes_only},
        solver={"batch_size": 1, "reference_batch_size": 1, "iterations": 8, "decay_at": []},
        training={"precise_bn_iterations": 6, "log_every_iterations": 1},
    )
    exit_code, record = run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    assert (exit_code, record is None) == (0, False)
    lines = read_metrics(recipe.output_dir / "metrics.jsonl")
    losses = [line for line in lines if "loss" in line]
    assert len(losses) == 8
    assert all(math.isfinite(line["loss"]) for line in losses)
    without = [line for line in losses if line["loss_box_reg"] == 0 and line["loss_rpn_loc"] == 0]
    assert 0 < len(without) < 8
    assert all(line["loss_rpn_cls"] > 0 and line["loss_cls"] > 0 for line in without)
    assert all(
        "loss_mask" not in line if boxes_only else line["loss_mask"] == 0 for line in without
    )


def test_resumed_run_equals_a_straight_one(
    make_recipe: MakeRecipe, sparse_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after two of four steps and resumed, it ends at the same tensors and detections."""
    straight, halved = (
        make_recipe(data=sparse_data, output_dir=str(make_recipe().output_dir.with_name(name)))
        for name in ("straight", "halved")
    )
    trunk = random_trunk(straight.model, 0)
    assert run_recipe(straight, trunk, resume=False)[0] == 0
    with monkeypatch.context() as patch:
        step = trainer._Trainer._train_step

        def step_and_stop(self: Any, samples: Any) -> dict[str, float]:
            if self.state.step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, samples)

        patch.setattr(trainer._Trainer, "_train_step", step_and_stop)
        assert run_recipe(halved, trunk, resume=False)[0] == 128 + signal.SIGTERM
    assert run_recipe(halved, trunk, resume=True)[0] == 0
    found, expected = (
        load_checkpoint(recipe.output_dir / "checkpoints" / "last")[0]
        for recipe in (halved, straight)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    predictions = [
        (recipe.output_dir / "predictions.json").read_text() for recipe in (halved, straight)
    ]
    assert predictions[0] == predictions[1]


def test_empty_images_come_in_their_turn(
    make_recipe: MakeRecipe, sparse_data: dict[str, Any]
) -> None:
    """Each pass has all six images where they are kept, and the two with objects otherwise."""
    for keep, expected in ((True, 4), (False, 0)):
        recipe = make_recipe(data={**sparse_data, "keep_empty_images": keep})
        job = open_job(recipe, random_trunk(recipe.model, 0))
        assert len(job.train_images) == 2 + expected
        stream = TrainingStream(job.train_images, recipe.input, 0)
        samples = [stream[position] for position in range(len(job.train_images))]
        empty = [s for s in samples if isinstance(s, TrainingSample) and not len(s.labels)]
        assert len(empty) == expected


def test_batch_of_empty_images_reaches_every_parameter(
    make_recipe: MakeRecipe, sparse_data: dict[str, Any]
) -> None:
    """Nothing is left out of the graph, which several processes would wait for."""
    recipe = make_recipe(data=sparse_data)
    job = open_job(recipe, random_trunk(recipe.model, 0))
    empty = [image for image in job.train_images if not image.annotations]
    stream = TrainingStream(empty, recipe.input, 0)
    samples = [
        s for s in (stream[position] for position in range(2)) if isinstance(s, TrainingSample)
    ]
    detector = DetectorState(job).detector.train()
    losses = detector(samples)
    assert isinstance(losses, dict)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    parameters = dict(detector.named_parameters())
    assert not [name for name, part in parameters.items() if part.grad is None]
    assert all(part.grad is not None and part.grad.isfinite().all() for part in parameters.values())
    unmoved = [name for name in parameters if name.startswith("roi_heads.mask")]
    assert all(not parameters[name].grad.any() for name in unmoved)  # type: ignore[union-attr]
    assert parameters["rpn.head.cls_logits.weight"].grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("keep", [False, True])
def test_exported_keys_keep_them(
    make_recipe: MakeRecipe, sparse_data: dict[str, Any], keep: bool
) -> None:
    """detectron2's programs get the choice, and what of it is wider there is said."""
    recipe = make_recipe(data={**sparse_data, "keep_empty_images": keep})
    out = recipe.output_dir.with_name("out.yaml")
    export_config(recipe, out, None)
    text = out.read_text(encoding="utf-8")
    assert f"FILTER_EMPTY_ANNOTATIONS: {json.dumps(not keep)}" in text
    assert ("images with only crowds" in text) == keep
