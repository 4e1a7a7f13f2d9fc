"""Compare two Gloo processes of the torchvision engine with one that computes both halves.

SyncBN needs GPUs, so BatchNorm is each process's own: the oracle has one detector per half and
averages their gradients.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detection.engines.torchvision.run_state import DetectorState
from detection.feeding.samples import TrainingSample, TrainingStream, step_seed
from detection.job.job import open_job
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_eval.records.record import read_record
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.weights.checkpoint import load_checkpoint

PROGRAM = Path(__file__).with_name("two_detection_processes.py")
LR = 0.01

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(params=["objects", "mostly empty"])
def recipe(
    make_recipe: MakeRecipe, sparse_data: dict[str, Any], request: pytest.FixtureRequest
) -> Recipe:
    """Two steps of two square images, at one rate and without any change of it."""
    return make_recipe(
        data=sparse_data if request.param == "mostly empty" else {},
        input={"train_short_sides_pixels": [64]},
        model={"trunk_norm": "BN", "head_norm": "BN"},
        solver={
            "base_lr": LR,
            "reference_batch_size": 2,
            "iterations": 2,
            "decay_at": [],
            "warmup_iterations": 0,
        },
        training={"precise_bn_iterations": None, "evaluate_every_iterations": 1},
    )


def _oracle(recipe: Recipe) -> dict[str, Tensor]:
    """Return what the main process has after two steps, computed in one process."""
    job = open_job(recipe, random_trunk(recipe.model, recipe.seed))
    states = [DetectorState(job) for _ in range(2)]
    stream = TrainingStream(job.train_images, recipe.input, recipe.seed)
    for step in range(2):
        for process, state in enumerate(states):
            sample = stream[2 * step + process]
            assert isinstance(sample, TrainingSample)
            torch.manual_seed(step_seed(recipe.seed, step, process))
            losses = state.detector([sample])
            assert isinstance(losses, dict)
            state.optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        for first, second in zip(*(s.detector.parameters() for s in states), strict=True):
            if first.grad is not None and second.grad is not None:
                mean = (first.grad + second.grad) / 2
                first.grad, second.grad = mean, mean.clone()
        for state in states:
            state.optimizer.step()
    return dict(states[0].detector.state_dict())


def test_two_processes_train_one_detector(
    recipe: Recipe, tmp_path: Path, run_two_processes: Any
) -> None:
    """Weights are the oracle's, both detect with the saved statistics, and one process writes."""
    task = tmp_path / "task.json"
    task.write_text(json.dumps(to_tree(recipe)))
    done = run_two_processes(PROGRAM, task)
    assert done.returncode == 0, done.stderr[-3000:]
    found, metadata, _ = load_checkpoint(recipe.output_dir / "checkpoints" / "last")
    assert metadata.step == 2
    for name, tensor in _oracle(recipe).items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name
    notes = [json.loads((tmp_path / f"process-{rank}.json").read_text()) for rank in range(2)]
    assert notes[0] == notes[1]
    assert notes[0]["code"] == 0
    assert len(notes[0]["buffers"]) == 1
    predictions = json.loads((recipe.output_dir / "predictions.json").read_text())
    images = [entry["image_id"] for entry in predictions]
    assert images == sorted(images)
    record = read_record(recipe.output_dir / "records" / "detection.json")
    assert record.num_samples == 3
    steps = [line["step"] for line in read_metrics(recipe.output_dir / "metrics.jsonl")]
    assert steps == sorted(steps)


def test_batch_must_be_shared_evenly(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes cannot share two images."""
    monkeypatch.setattr("detection.job.job.world_size", lambda: 3)
    with pytest.raises(UserError, match="2 is not a multiple of the 3 processes; change it or"):
        run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
