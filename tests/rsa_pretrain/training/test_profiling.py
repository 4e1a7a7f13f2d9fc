import gzip
import json
import logging
import time
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import yaml

from rsa_pretrain.__main__ import main
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.plumbing.torch_internals import DeviceType, profiler_enabled
from rsa_pretrain.training.profiling import format_summary, part, profiled_steps, time_by_part
from rsa_pretrain.training.trainer import Trainer
from rsa_pretrain.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_resnets")

PARTS = {
    "data wait",
    "views",
    "layout",
    "forward backbone",
    "forward projector",
    "forward predictor",
    "forward target_backbone",
    "forward target_projector",
    "loss",
    "backward",
    "optimizer",
    "target update",
    "logging",
    "checkpoint",
}


@pytest.fixture
def long_tree(tiny_tree):
    """Plain settings of the tiny run with 20 steps, of which 11 to 20 are profiled."""
    tiny_tree["training"] |= {"epochs": 5, "checkpoint_every_epochs": 5}
    return tiny_tree


def make_trainer(tree, *, profile, resume=False):
    """A trainer of the run."""
    config = parse_tree(PretrainConfig, tree, "tiny run")
    return Trainer(config, open_images(config.data, "train"), resume=resume, profile=profile)


def read_summary(run_dir):
    """Milliseconds per step by part."""
    lines = (run_dir / "profile/summary.txt").read_text().splitlines()[1:]
    return {line[:24].strip(): float(line[24:].split()[0]) for line in lines}


class Step(NamedTuple):
    """One call of the trainer's step."""

    number: int
    profiled: bool
    start: float
    end: float


def note_steps(monkeypatch):
    """Let every trainer note its steps; returns the notes."""
    notes = []
    original = Trainer._train_step

    def noted(self, batches):
        number, profiled, started = self.state.step, profiler_enabled(), time.perf_counter()
        original(self, batches)
        notes.append(Step(number, profiled, started, time.perf_counter()))

    monkeypatch.setattr(Trainer, "_train_step", noted)
    return notes


def assert_same_training(one, other):
    """Networks, momentum and logged losses are bitwise equal."""
    tensors, _, trainer_state = load_checkpoint(one / "checkpoints/last")
    tensors_other, _, trainer_state_other = load_checkpoint(other / "checkpoints/last")
    assert tensors.keys() == tensors_other.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, tensors_other[name]), name
    momentum = trainer_state["optimizer"]["state"]
    for key, state in trainer_state_other["optimizer"]["state"].items():
        assert torch.equal(momentum[key]["momentum_buffer"], state["momentum_buffer"])
    losses, losses_other = (
        [line["loss"] for line in read_metrics(folder / "metrics.jsonl")] for folder in (one, other)
    )
    assert len(losses) == 20
    assert losses == losses_other


def event(name, start, end, *, kernels=(), thread=1, device=DeviceType.CPU, annotation=False):
    """The profiler's record of one operation or range."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        kernels=[SimpleNamespace(duration=duration) for duration in kernels],
        thread=thread,
        device_type=device,
        is_user_annotation=annotation,
    )


def test_a_profiled_run_is_the_same_run(long_tree, tmp_path, monkeypatch, caplog):
    """The command writes trace and summary of what the clock saw; weights are bitwise equal."""
    clock = note_steps(monkeypatch)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(long_tree))
    with caplog.at_level(logging.INFO):
        assert main(["run", str(path), "--profile"]) == 0
    assert "time of 10 steps by part" in caplog.text
    profiled, plain = tmp_path / "run", tmp_path / "plain"
    with gzip.open(profiled / "profile/trace.json.gz") as file:
        names = [entry.get("name", "") for entry in json.load(file)["traceEvents"]]
    assert {f"part: {name}" for name in PARTS} <= set(names)
    assert names.count("part: forward backbone") == 20
    summary = read_summary(profiled)
    assert summary.keys() == PARTS | {"other", "step"}
    step = summary.pop("step")
    assert sum(summary.values()) == pytest.approx(step, abs=0.01)
    measured = 1e3 * (clock[19].end - clock[10].start) / 10
    assert step - summary["checkpoint"] == pytest.approx(measured, rel=0.1)
    assert summary["other"] < 0.2 * step
    assert make_trainer(long_tree | {"output_dir": str(plain)}, profile=False).run() == 0
    assert not (plain / "profile").exists()
    assert_same_training(profiled, plain)


def test_a_resumed_compiled_run_is_profiled_from_its_own_start(long_tree, monkeypatch):
    """Ten steps of the process are let pass; what torch.compile traces is entered from outside."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **_: compile_module(self, backend="eager")
    )
    long_tree["training"] |= {"epochs": 6, "compile": True}
    first = make_trainer(long_tree, profile=False)
    first.state.step = 4
    first.folder.save()
    steps = note_steps(monkeypatch)
    resumed = make_trainer(long_tree, profile=True, resume=True)
    assert resumed.run() == 0
    assert [step.number for step in steps if step.profiled][-10:] == list(range(14, 24))
    summary = read_summary(resumed.config.output_dir)
    assert summary["forward target_backbone"] > summary["forward predictor"] > 0


def test_a_short_run_says_that_nothing_was_profiled(tiny_tree, caplog):
    """Eight steps end before the profile would begin."""
    trainer = make_trainer(tiny_tree, profile=True)
    assert trainer.run() == 0
    assert "ended within its first 10 steps" in caplog.text
    assert not (trainer.config.output_dir / "profile").exists()


@pytest.mark.parametrize("num_steps", [10, 12, 19])
def test_a_run_that_ends_early_counts_the_steps_it_took(num_steps, tmp_path, caplog):
    """The step that the profiler begins after the last one is none, and adds no time."""
    with (
        caplog.at_level(logging.INFO),
        profiled_steps(tmp_path, torch.nn.Sequential(), torch.device("cpu")) as end_step,
    ):
        for _ in range(num_steps):
            with part("loss"):
                time.sleep(0.01)
            end_step()
        time.sleep(0.1)
    if num_steps == 10:
        assert "ended within its first 10 steps" in caplog.text
        assert not list(tmp_path.iterdir())
    else:
        assert f"time of {num_steps - 10} steps by part" in caplog.text
        lines = (tmp_path / "summary.txt").read_text().splitlines()
        loss, step = (float(line.split()[1]) for line in (lines[-2], lines[-1]))
        assert 10 <= loss <= step < loss + 10


def test_a_part_leaves_out_the_parts_within_it():
    """Gaps within a step are "other"; time between two steps belongs to none."""
    times = time_by_part(
        [
            event("ProfilerStep*", 0, 10e6, annotation=True),
            event("part: loss", 1e6, 7e6, annotation=True),
            event("part: forward backbone", 1e6, 3e6, annotation=True),
            event("part: forward projector", 3e6, 4e6, annotation=True),
            event("aten::conv2d", 1.5e6, 2e6),
            event("ProfilerStep*", 12e6, 15e6, annotation=True),
            event("part: loss", 13e6, 15e6, annotation=True),
        ],
        num_steps=2,
    )
    assert times.num_steps == 2
    assert times.host == {
        "other": 1 + 3 + 1,
        "forward backbone": 2,
        "forward projector": 1,
        "loss": 3 + 2,
    }
    assert times.device == {}


def test_kernels_belong_to_the_part_that_launched_them():
    """They may run later, and another thread may launch them; a GPU's own ranges count nothing."""
    times = time_by_part(
        [
            event("ProfilerStep*", 0, 10, annotation=True),
            event("part: loss", 0, 4, kernels=[90], annotation=True),
            event("part: backward", 4, 9, annotation=True),
            event("aten::conv2d", 1, 2, kernels=[20, 1]),
            event("aten::convolution_backward", 5, 6, kernels=[40], thread=2),
            event("conv", 2, 22, device=DeviceType.CUDA),
            event("add", 22, 23, device=DeviceType.CUDA),
            event("conv backward", 30, 70, device=DeviceType.CUDA),
            event("launched by no operation", 70, 75, device=DeviceType.CUDA),
            event("part: loss", 2, 92, device=DeviceType.CUDA, annotation=True),
        ],
        num_steps=1,
    )
    assert times.device == pytest.approx({"loss": 21e-6, "backward": 40e-6, "other": 5e-6})
    summary = format_summary(times).splitlines()
    assert summary[0].split()[-2:] == ["device", "ms/step"]
    assert summary[-1].split() == ["step", "0.010", "100.0%", "0.066"]


@pytest.mark.gpu
def test_a_gpu_run_counts_device_time(long_tree):
    """Every network's forward and the backward pass launch kernels."""
    long_tree["training"]["device"] = "cuda"
    trainer = make_trainer(long_tree, profile=True)
    assert trainer.run() == 0
    lines = (trainer.config.output_dir / "profile/summary.txt").read_text().splitlines()
    device = {line[:24].strip(): float(line.split()[-1]) for line in lines[1:]}
    assert device["backward"] > device["forward backbone"] > 0
    assert device["other"] < 0.2 * device["step"]
