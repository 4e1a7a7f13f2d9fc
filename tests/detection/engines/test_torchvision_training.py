"""Test that the torchvision engine learns, and its work between the steps."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detection.engines.torchvision import trainer
from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.precise_bn import refresh_statistics
from detection.engines.torchvision.run_state import DetectorState
from detection.feeding.samples import TrainingSample, TrainingStream
from detection.job.job import Job, open_job
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.stop_signal import StopSignal
from rsa_pretrain.weights.checkpoint import load_checkpoint

COCO = Path(os.environ.get("RSA_DATA", "")) / "coco_mini"

MakeRecipe = Callable[..., Recipe]

TEN_STEPS = {
    "base_lr": 0.01,
    "reference_batch_size": 2,
    "iterations": 10,
    "decay_at": [],
    "warmup_iterations": 5,
}


def _open(make_recipe: MakeRecipe, **changes: Any) -> Job:
    recipe = make_recipe(**changes)
    return open_job(recipe, random_trunk(recipe.model, recipe.seed))


def _samples(job: Job, count: int) -> list[TrainingSample]:
    stream = TrainingStream(job.train_images, job.recipe.input, 1)
    samples = [stream[position] for position in range(count)]
    return [sample for sample in samples if isinstance(sample, TrainingSample)]


def _loss(detector: MaskRCNN, samples: list[TrainingSample]) -> float:
    """The loss of fixed samples, anchors and regions, by the batch's own statistics."""
    torch.manual_seed(0)
    with torch.no_grad():
        losses = detector.train()(samples)
    assert isinstance(losses, dict)
    return float(torch.stack(list(losses.values())).sum())


def _assert_ten_steps_help(job: Job, run_dir: Path) -> None:
    run_dir.mkdir()
    samples = _samples(job, 2)
    before = _loss(DetectorState(job).detector, samples)
    detector = trainer.train(job, run_dir, None, StopSignal())
    assert _loss(detector, samples) < 0.9 * before


def test_ten_steps_lower_the_loss(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """On the drawn shapes, by a tenth and more."""
    job = _open(make_recipe, solver=TEN_STEPS, training={"precise_bn_iterations": None})
    _assert_ten_steps_help(job, tmp_path / "run")


@pytest.mark.real_data
@pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set")
def test_ten_steps_lower_the_loss_on_photos(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """On COCO's photos and 80 classes, by a tenth and more."""
    data = {
        "train_annotations": str(COCO / "annotations/instances_train2017.json"),
        "train_images": str(COCO / "train2017"),
        "test_annotations": str(COCO / "annotations/instances_val2017.json"),
        "test_images": str(COCO / "val2017"),
    }
    job = _open(make_recipe, data=data, solver=TEN_STEPS, training={"precise_bn_iterations": None})
    _assert_ten_steps_help(job, tmp_path / "run")


def test_statistics_are_those_of_the_batches(make_recipe: MakeRecipe) -> None:
    """Precise BN sets the first norm's mean to the mean over all pixels of all batches."""
    job = _open(make_recipe, input={"train_short_sides_pixels": [64]}, model={"freeze_at": 0})
    detector = DetectorState(job).detector
    stem = detector.get_submodule("backbone.body.bn1")
    inputs: list[Tensor] = []
    stem.register_forward_pre_hook(lambda _module, arguments: inputs.append(arguments[0]))
    samples = _samples(job, 4)
    weights = {name: part.clone() for name, part in detector.named_parameters()}
    refresh_statistics(detector, iter([samples[:2], samples[2:]]), 2, job)
    assert len(inputs) == 2
    pixels = torch.cat(inputs).transpose(0, 1).flatten(1)
    torch.testing.assert_close(stem.running_mean, pixels.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem.running_var, pixels.var(1), rtol=1e-3, atol=1e-5)
    for name, part in detector.named_parameters():
        assert torch.equal(part, weights[name])
    assert isinstance(stem, nn.BatchNorm2d)
    assert stem.momentum == 0.1


def test_precise_statistics_are_saved_at_the_end(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """The last checkpoint has other statistics than without, and the same weights."""
    solver = {"iterations": 1, "decay_at": [], "warmup_iterations": 0}
    results = []
    for number in (None, 2):
        run_dir = tmp_path / f"run-{number}"
        run_dir.mkdir()
        job = _open(make_recipe, solver=solver, training={"precise_bn_iterations": number})
        trainer.train(job, run_dir, None, StopSignal())
        results.append(load_checkpoint(run_dir / "checkpoints" / "last")[0])
    plain, precise = results
    for name in plain:
        is_statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert is_statistic or torch.equal(plain[name], precise[name])
    name = "roi_heads.box_head.0.1.running_mean"
    assert not torch.equal(plain[name], precise[name])
