"""Two Gloo processes against one."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsa_eval.__main__ import main
from rsa_eval.evaluators.linear.batches import ReadOrder
from rsa_eval.evaluators.linear.heads import new_heads
from rsa_eval.evaluators.linear.settings import ProbeConfig
from rsa_eval.records.record import read_record

PROGRAM = Path(__file__).with_name("probe_processes.py")
SGD = {"epochs": 3, "milestones": [2], "batch_size": 16, "base_lr": [1.0, 30.0]}
LARS = {
    "epochs": 2,
    "milestones": [],
    "batch_size": 16,
    "base_lr": [5.0],
    "optimizer": "lars",
    "schedule": "cosine_by_step",
}
# 53 images leave a last batch of 5, 3 and 2 for each process; 33 one of 1, 1 and 0.
TRAININGS = [
    {"num_images": 53, "probe": SGD},
    {"num_images": 33, "probe": SGD},
    {"num_images": 33, "probe": LARS},
]
COMMANDS = {
    "online": ["probe.epochs=2", "probe.milestones=[]", "probe.batch_size=59"],
    "batched": ["probe.views=batched", "probe.epochs=2", "probe.milestones=[]"],
    "cached": ["protocol=dinov2", "probe.mode=cached", "probe.batch_size=16"],
}


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory, finished_run: Path, run_two_processes: Any
) -> Path:
    """The folder in which two processes left their results."""
    folder = tmp_path_factory.mktemp("two")
    commands = [_words(finished_run, name, folder / f"{name}.json") for name in COMMANDS]
    task = folder / "task.json"
    task.write_text(json.dumps({"trainings": TRAININGS, "commands": commands}))
    done = run_two_processes(PROGRAM, task)
    assert (folder / "done").exists(), done.stderr
    return folder


def _words(run: Path, name: str, out: Path) -> list[str]:
    return ["linear", str(run), "--out", str(out), "device=cpu", "seed=3", *COMMANDS[name]]


@pytest.fixture(scope="module")
def program() -> Any:
    """The program's functions, to be called in this process."""
    spec = importlib.util.spec_from_file_location("probe_processes", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", range(len(TRAININGS)))
def test_two_processes_train_what_one_trains(
    outcome: Path, program: Any, tmp_path: Path, number: int
) -> None:
    """Heads, velocities and losses agree to float64's rounding, and both processes hold them."""
    alone = program.train(TRAININGS[number], tmp_path / "state.pt")
    together = [torch.load(outcome / f"result-{number}-{rank}.pt") for rank in range(2)]
    start = new_heads(6, 3, ProbeConfig(**TRAININGS[number]["probe"]), 0, torch.device("cpu"))
    assert not torch.allclose(alone.trainer.heads.weight, start.weight.double())
    for expected, first, second in zip(alone.tensors(), *together, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, expected, rtol=1e-10, atol=1e-12)


def test_a_signal_to_one_process_stops_both_and_they_go_on(outcome: Path) -> None:
    """After the same step; what they end with is bit for bit what an undisturbed pair has."""
    texts = [(outcome / f"stopped-{rank}.txt").read_text() for rank in range(2)]
    assert texts[0] == texts[1]
    assert re.match(r"stopped by SIGUSR1 after step [67] of 12, saved", texts[0])
    for rank in range(2):
        whole = torch.load(outcome / f"result-0-{rank}.pt")
        resumed = torch.load(outcome / f"resumed-{rank}.pt")
        assert all(map(torch.equal, whole, resumed))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_in_two_processes_equals_one(
    outcome: Path, finished_run: Path, tmp_path: Path, name: str
) -> None:
    """Augmented or cached, each test image is counted once and the losses are the same.

    The 60 training images make batches of 59 and 1 online: one process's part is empty.
    """
    assert main(_words(finished_run, name, tmp_path / "alone.json")) == 0
    alone, together = read_record(tmp_path / "alone.json"), read_record(outcome / f"{name}.json")
    assert together.num_samples == alone.num_samples == 30
    losses = [record.details["loss_by_epoch"] for record in (together, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # float32; batches round differently
    # One image of 30 may lie on the border between two classes.
    assert together.metrics["top1"].value == pytest.approx(alone.metrics["top1"].value, abs=3.4)


def test_one_process_writes(outcome: Path) -> None:
    """There is one record of each evaluation, and no state or half-written file is left."""
    names = {path.name for path in outcome.glob("*.json")}
    assert names == {"task.json", *(f"{name}.json" for name in COMMANDS)}
    assert not list(outcome.glob("*.state*"))
    assert not list(outcome.glob(".*"))


def test_shares_of_processes_cover_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five processes read, together and in order, what one reads."""
    order = ReadOrder(num_images=53, batch_size=16, epochs=2, seed=0)
    whole = [images for _, images in order.shares(0)]
    monkeypatch.setattr("rsa_eval.evaluators.linear.batches.world_size", lambda: 5)
    parts = []
    for rank in range(5):
        monkeypatch.setattr("rsa_eval.evaluators.linear.batches.rank", lambda rank=rank: rank)
        parts.append([images for _, images in order.shares(0)])
    for step, images in enumerate(whole):
        assert np.array_equal(np.concatenate([part[step] for part in parts]), images)
