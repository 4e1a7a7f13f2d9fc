"""The example batch script, with stand-ins for SLURM's commands."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rsa_pretrain.weights.checkpoint import list_checkpoints

pytestmark = pytest.mark.process

SCRIPT = Path(__file__).parents[3] / "configs" / "slurm" / "pretrain.sbatch"

# Runs the command as one task; SLURM sends the warning signal to the tasks, not to the script.
SRUN = """#!/bin/bash
shift
SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 "$@" &
echo $! > {folder}/task
wait $!
"""
SCONTROL = """#!/bin/bash
echo "$@" >> {folder}/calls
"""


@pytest.fixture
def cluster(tmp_path):
    """A folder with the stand-ins, and the environment that finds them."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return folder, os.environ | {"PATH": path, "SLURM_JOB_ID": "77", "OMP_NUM_THREADS": "1"}


def test_a_warned_job_saves_is_queued_again_and_resumes(tiny_tree, tmp_path, cluster):
    """SIGUSR1: saved, exit code 138, scontrol requeue; the second start ends the run."""
    folder, environment = cluster
    tiny_tree["training"]["epochs"] = 4
    tiny_tree["method"] = {"name": "supervised", "num_classes": 10}  # the least to write
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny_tree))
    command = ["bash", str(SCRIPT), str(config)]
    job = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list_checkpoints(tmp_path / "run"):
        assert job.poll() is None, job.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int((folder / "task").read_text()), signal.SIGUSR1)
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 128 + signal.SIGUSR1
    assert "stopped by SIGUSR1" in errors
    assert (folder / "calls").read_text() == "requeue 77\n"
    reached = int(list_checkpoints(tmp_path / "run")[-1].name[5:])
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"from step {reached}" in again.stderr
    assert (tmp_path / "run" / "backbone.safetensors").exists()
    assert (folder / "calls").read_text() == "requeue 77\n"  # a job that ends is not queued again


def test_a_job_that_fails_is_not_queued_again(tiny_tree, tmp_path, cluster):
    """A user's mistake keeps its exit code."""
    folder, environment = cluster
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny_tree))
    command = ["bash", str(SCRIPT), str(config), "training.epochs=none"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert not (folder / "calls").exists()


def test_each_task_knows_its_place(cluster):
    """As torchrun says it; from the number on this node comes each one's share of the memory."""
    folder, environment = cluster
    (folder / "python").write_text("#!/bin/bash\nenv\n")
    (folder / "python").chmod(0o755)
    environment["SLURM_NTASKS_PER_NODE"] = "4"
    command = ["bash", str(SCRIPT), "any"]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    place = {"RANK=0", "WORLD_SIZE=1", "LOCAL_RANK=0", "LOCAL_WORLD_SIZE=4"}
    assert place <= set(lines.splitlines())
