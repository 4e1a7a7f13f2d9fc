from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.engines.torchvision.run_state import DetectorState
from detection.job.job import open_job
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import save_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_detector")


def test_a_first_step_that_the_scaler_skips_leaves_no_trace(
    make_recipe: Callable[..., Recipe],
) -> None:
    """fp16's scaler found infinity: the next step moves as a first step of plain SGD does."""
    recipe = make_recipe()
    state = DetectorState(open_job(recipe, random_trunk(recipe.model, recipe.seed)))
    group = state.optimizer.param_groups[0]
    group["lr"], group["weight_decay"] = 0.1, 0.0
    parameter = group["params"][0]
    before = parameter.detach().clone()
    parameter.grad = torch.full_like(parameter, float("inf"))
    state.optimizer.found_inf, state.optimizer.grad_scale = torch.ones(()), torch.ones(())
    state.optimizer.step()
    assert torch.equal(parameter, before)
    state.optimizer.found_inf = torch.zeros(())
    parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    torch.testing.assert_close(parameter.detach(), before - 0.1)


def test_colour_order_matters(make_recipe: Callable[..., Recipe]) -> None:
    """The trunk's first maps of an image and of the same image as BGR differ: a control."""
    recipe = make_recipe()
    state = DetectorState(open_job(recipe, random_trunk(recipe.model, recipe.seed)))
    conv = state.detector.get_submodule("backbone.body.conv1")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps, swapped = conv(image), conv(image.flip(1))
    assert (maps - swapped).abs().max() > 0.1 * maps.abs().max()


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({}, "lacks 'optimizer'"),
        ({"optimizer": 3}, "is damaged"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "is damaged: loaded state dict"),
    ],
)
def test_a_damaged_trainer_state_is_named(
    make_recipe: Callable[..., Recipe], tmp_path: Path, optimizer: dict[str, Any], message: str
) -> None:
    """Whatever it holds in the place of a part, resuming ends in one line."""
    recipe = make_recipe()
    job = open_job(recipe, random_trunk(recipe.model, recipe.seed))
    state = DetectorState(job)
    kept = {"scaler": state.scaler.state_dict(), "train_sha256": job.train_sha256}
    tensors = state.detector.state_dict()
    save_checkpoint(tmp_path, tensors, job.metadata(1), kept | optimizer, 1, job.notes)
    with pytest.raises(UserError, match=f"^the trainer state of '.*' {message}"):
        state.resume(tmp_path / "checkpoints" / "last")
