"""Two Gloo processes against one."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rsa_eval.records.record import read_record

PROGRAM = Path(__file__).with_name("finetune_processes.py")
CONFIG = {
    "data": {"name": "digits", "image_size": 16, "num_train_images": 27, "num_workers": 0},
    "device": "cpu",
    "seed": 3,
    "subset": None,
    # Steps of 14 and 13 images: shares of 7 and 7, 6 and 7.
    "tuning": {"epochs": 2, "milestones": [1], "batch_size": 16, "head_base_lr": 0.5},
}


SEARCH = ["device=cpu", "protocol=byol", "tuning.steps=3", "tuning.batch_size=16"]
SEARCH += ["grid.base_lr=[0.01, 1e30]", "grid.decays=[0, 0.001]"]


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory, finished_run: Path, run_two_processes: Any
) -> Path:
    """The folder in which two processes left their results."""
    folder = tmp_path_factory.mktemp("two")
    task = folder / "task.json"
    command = ["finetune", str(finished_run), "--out", str(folder / "record.json"), *SEARCH]
    task.write_text(json.dumps({"run": str(finished_run), "config": CONFIG, "command": command}))
    done = run_two_processes(PROGRAM, task)
    assert done.returncode == 0, done.stderr
    return folder


def _result(folder: Path, name: str, process: int) -> Any:
    return torch.load(folder / f"{name}-{process}.pt", weights_only=True)


def test_two_processes_train_what_one_trains(
    outcome: Path, finished_run: Path, tmp_path: Path
) -> None:
    """Without BatchNorm, on batches of unequal shares, weights and losses are those of one."""
    spec = importlib.util.spec_from_file_location("finetune_processes", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    task = {"run": str(finished_run), "config": CONFIG}
    alone = program.tune(task, tmp_path / "state.pt", batchnorm=False)
    for process in (0, 1):
        found = _result(outcome, "plain", process)
        assert found["losses"] == pytest.approx(alone.losses, rel=1e-9)
        assert found["losses"][1] != pytest.approx(found["losses"][0], rel=1e-4)
        for name, tensor in alone.classifier.state_dict().items():
            torch.testing.assert_close(found["tensors"][name], tensor, rtol=1e-8, atol=1e-12)


def test_all_processes_end_with_the_same_tensors(outcome: Path) -> None:
    """BatchNorm's running statistics are the main process's everywhere: each scores its share."""
    first, second = (_result(outcome, "batchnorm", process) for process in (0, 1))
    assert first["losses"] == second["losses"]
    assert any(name.endswith("running_mean") for name in first["tensors"])
    for name, tensor in first["tensors"].items():
        assert torch.equal(second["tensors"][name], tensor), name


def test_two_processes_search_a_grid(outcome: Path) -> None:
    """Both drop the diverging rate and train with the other; no state is left."""
    record = read_record(outcome / "record.json")
    cells = record.details["grid"]
    assert [cell["base_lr"] for cell in cells] == [0.01, 0.01, 1e30, 1e30]
    assert [cell["failure"] is None for cell in cells] == [True, True, False, False]
    assert record.details["chosen"]["base_lr"] == 0.01
    assert record.details["validation"]["count"] == 12
    assert len(record.details["loss_by_epoch"]) == 1
    assert not list(outcome.glob("*.state*"))


def test_all_trainings_of_a_process_vote_in_one_group(outcome: Path) -> None:
    """A search has 57, each of whose own groups would keep its connections open."""
    assert [path.read_text() for path in sorted(outcome.glob("groups-*"))] == ["1", "1"]
