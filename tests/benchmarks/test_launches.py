"""Test the counts of operations, which are exact at any size."""

import torch
from torch import nn

from benchmarks.launches import LaunchSettings, count_steps, seconds_per_step
from benchmarks.operations import OTHER, counting, name_forwards
from benchmarks.training import BYOL, RSA
from rsa_pretrain.training.profiling import part

SMALL = LaunchSettings(batch_size=4, image_size=16, num_skipped=8, num_steps=8, precision="fp32")


def test_operations_count_for_the_innermost_part() -> None:
    """Views and allocations are operations, but compute nothing; autograd's count like others."""
    method = nn.ModuleDict({"predictor": nn.ReLU()})
    name_forwards(method)
    with counting() as counter:
        tensor = torch.ones(2, requires_grad=True)
        counter.active = True
        tensor + tensor
        with part("loss"):
            doubled = method["predictor"](tensor.view(2, 1)) + 1
            torch.empty(2)
        with part("backward"):
            doubled.sum().backward()
        counter.active = False
        tensor + tensor
    assert counter.every[OTHER] == counter.computing[OTHER] == 1
    assert (counter.every["loss"], counter.computing["loss"]) == (3, 1)  # view, add, empty
    assert counter.computing["forward predictor"] == 1
    assert counter.computing["backward"] >= 3  # the sum, its gradient and that of ReLU


def test_a_step_s_operations_are_counted() -> None:
    """RSA's step has five networks' forwards, four layouts and an average in one operation."""
    every, computing = count_steps(SMALL, RSA)
    forwards = {name for name in every if name.startswith("forward ")}
    networks = ("backbone", "projector", "predictor", "target_backbone", "target_projector")
    assert forwards == {f"forward {name}" for name in networks}
    assert every["layout"] == 4 * SMALL.num_steps
    assert every["target update"] == 1 * SMALL.num_steps
    assert every["optimizer"] > 0
    assert "checkpoint" not in every
    # Two views through 20 convolutions, 20 norms, 17 ReLUs and 8 sums.
    assert computing["forward backbone"] >= 2 * (20 + 20 + 17 + 8) * SMALL.num_steps
    assert every["views"] > computing["views"] > 0


def test_counts_tell_methods_apart() -> None:
    """BYOL has two views instead of four, and a smaller loss."""
    rsa, byol = (count_steps(SMALL, method)[0] for method in (RSA, BYOL))
    assert byol["loss"] < rsa["loss"]
    assert byol["layout"] == 2 * SMALL.num_steps


def test_a_captured_step_s_passes_take_no_time() -> None:
    """The rest of a step is less than half of it, and more than nothing."""
    whole, outside = (seconds_per_step(SMALL, RSA, captured=captured) for captured in (False, True))
    assert 0 < outside < whole / 2
