"""Two Gloo processes against one.

SyncBatchNorm does not run under DDP on a CPU, so equality is shown with statistics per process:
the one-process oracle normalises each half of its batch by itself.
"""

import copy
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import narrow
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from rsa_pretrain.config import TrainingConfig
from rsa_pretrain.methods.registry import METHODS
from rsa_pretrain.plumbing.distributed import StopVote
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.training.batch_plan import BatchPlan, StepSampler, plan_batches
from rsa_pretrain.weights.checkpoint import list_checkpoints, load_checkpoint

PROGRAM = Path(__file__).with_name("two_processes.py")
# float64 rounding (1e-16), amplified by four training steps.
TOLERANCE = {"rtol": 1e-8, "atol": 1e-10}


def make_float64_trainer(tree, *, resume=False):
    """The trainer that each of the two processes makes, here with one."""
    spec = importlib.util.spec_from_file_location("two_processes", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program.make_float64_trainer(tree, resume=resume)


def torchrun(*arguments):
    """The command line of two processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node=2", *map(str, arguments)]


def environment():
    """One thread per process: threads that wait for one another only slow the test down."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


class SplitBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Normalises each half by itself; the running statistics are the first half's.

    The batches are counted by the networks.
    """

    def forward(self, features):
        """Normalise (N, C, …), N even."""
        first, second = features.chunk(2)
        running = (self.running_mean, self.running_var)
        common = {"training": True, "momentum": self.momentum, "eps": self.eps}
        return torch.cat(
            [
                functional.batch_norm(first, *running, self.weight, self.bias, **common),
                functional.batch_norm(second, None, None, self.weight, self.bias, **common),
            ]
        )


def split_batchnorm(method):
    """Turn every BatchNorm of a method into one of two halves."""
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = SplitBatchNorm


def final_state(run_dir):
    """Tensors of the last checkpoint."""
    return load_checkpoint(run_dir / "checkpoints" / "last")[0]


def assert_close(one, other, names):
    """Equal up to rounding."""
    for name in names:
        torch.testing.assert_close(one[name], other[name], msg=name, **TOLERANCE)


@pytest.fixture(scope="module", autouse=True)
def narrow_resnets():
    """Make ResNets narrow ones, here and in the two processes."""
    with narrow.narrow_resnets():
        yield


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, small_methods, run_two_processes):
    """Folder of a job of two processes that trained every method, and one that was stopped."""
    folder = tmp_path_factory.mktemp("jobs")
    base = {
        "data": {"name": "digits", "image_size": 16, "num_train_images": 32, "num_workers": 0},
        "backbone": {"arch": "resnet18", "stem": "standard"},
        "optimizer": {"base_lr": 0.5, "weight_decay": 5e-4},
        "training": {"epochs": 1, "global_batch_size": 8, "device": "cpu"},
        "monitor": {"log_every_steps": 1},
    }
    trees = {}
    for name in METHODS:
        settings = {"name": name} | small_methods[name]
        if name == "moco_v2":
            settings["shuffle_bn"] = False
        trees[name] = base | {"method": settings}
    # Not fewer than 4 images per pass: BatchNorm of 2 values amplifies rounding without bound.
    passes = {"training": {"epochs": 2, "global_batch_size": 16, "batch_size_per_device": 4}}
    trees["accumulated"] = trees["rsa"] | passes
    trees["batched"] = trees["byol"] | {"views": {"implementation": "batched"}}
    trees["stopped"] = copy.deepcopy(trees["byol"])
    for name, tree in trees.items():
        tree["output_dir"] = str(folder / name)
    stopped = trees.pop("stopped")
    task = folder / "task.json"
    task.write_text(json.dumps({"runs": list(trees.values()), "stopped_run": stopped}))
    done = run_two_processes(PROGRAM, task)
    assert (folder / "done").exists(), done.stderr
    return folder, trees | {"stopped": stopped}


@pytest.mark.parametrize("name", [*METHODS, "batched"])
def test_two_processes_equal_one(name, jobs, tmp_path):
    """Weights, statistics, queue and logged losses after an epoch of the same global batch."""
    folder, trees = jobs
    trainer = make_float64_trainer(trees[name] | {"output_dir": str(tmp_path / name)})
    split_batchnorm(trainer.state.method)
    assert trainer.run() == 0
    one, two = final_state(tmp_path / name), final_state(folder / name)
    assert one.keys() == two.keys()
    assert_close(one, two, one)
    assert one["backbone.conv1.weight"].dtype == torch.float64
    losses = [
        [line["loss"] for line in read_metrics(run_dir / name / "metrics.jsonl")]
        for run_dir in (tmp_path, folder)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # the log is float32


def test_without_the_split_the_runs_differ(jobs, tmp_path):
    """The comparison can fail: statistics of the whole batch give other weights."""
    folder, trees = jobs
    assert make_float64_trainer(trees["rsa"] | {"output_dir": str(tmp_path / "rsa")}).run() == 0
    with pytest.raises(AssertionError, match=r"backbone\.conv1\.weight"):
        assert_close(
            final_state(tmp_path / "rsa"), final_state(folder / "rsa"), ["backbone.conv1.weight"]
        )


def test_accumulation_in_two_processes_equals_one(jobs, tmp_path):
    """Two processes of two passes train the weights of one process of four."""
    folder, trees = jobs
    tree = trees["accumulated"] | {"output_dir": str(tmp_path / "one")}
    trainer = make_float64_trainer(tree)
    parameters = [name for name, _ in trainer.state.method.named_parameters()]
    assert trainer.plan.num_passes == 4
    assert trainer.run() == 0
    assert_close(final_state(tmp_path / "one"), final_state(folder / "accumulated"), parameters)


def test_a_signal_to_one_process_stops_all_at_the_same_step(jobs):
    """Both leave with the code of the signal, one step after it came."""
    folder, _ = jobs
    codes = [(folder / f"exit-{rank}").read_text() for rank in range(2)]
    assert codes == [str(128 + signal.SIGUSR1)] * 2
    assert list_checkpoints(folder / "stopped")[-1].name == "step-00000003"


def test_a_run_resumes_on_another_number_of_processes(jobs, tmp_path):
    """Stopped with two, resumed with one at the same global batch: the same weights."""
    folder, trees = jobs
    tree = copy.deepcopy(trees["stopped"])
    tree["training"]["batch_size_per_device"] = 4
    trainer = make_float64_trainer(tree, resume=True)
    assert trainer.state.step == 3
    parameters = [name for name, _ in trainer.state.method.named_parameters()]
    assert trainer.run() == 0
    assert_close(final_state(folder / "stopped"), final_state(folder / "byol"), parameters)


def test_gathering_and_shuffling(jobs):
    """Gathered in order; shuffled outputs come back to their images, computed all over."""
    folder, _ = jobs
    results = [json.loads((folder / f"exchange-{rank}.json").read_text()) for rank in range(2)]
    computed_elsewhere = 0
    for rank, result in enumerate(results):
        assert result["gathered"] == [0, 1, 2, 3, 10, 11, 12, 13]
        assert result["photos_kept"]  # channels last, as training has them
        for outputs in result["shuffled"]:
            assert [row[0] for row in outputs] == [10 * rank + index for index in range(4)]
            computed_elsewhere += sum(row[1] != rank for row in outputs)
    assert 0 < computed_elsewhere < 40


def test_one_process_votes_for_itself():
    """Without others a signal stops the run at once."""
    vote = StopVote()
    assert vote.agree(None) is None
    assert vote.agree(signal.SIGTERM) is signal.SIGTERM


@pytest.mark.parametrize(("world_size", "per_device"), [(1, 12), (2, 6), (3, 2), (2, 3)])
def test_processes_read_disjoint_parts_of_each_batch(world_size, per_device):
    """Together and in order they read what one process reads, each image once."""
    whole = list(StepSampler(50, BatchPlan(12, 12, 1, 0), seed=1, steps=range(8)))
    parts = [
        list(StepSampler(50, BatchPlan(12, per_device, world_size, rank), 1, range(8)))
        for rank in range(world_size)
    ]
    passes = 12 // (world_size * per_device)
    for step, batch in enumerate(whole):
        read = [key for part in parts for chunk in part[step * passes :][:passes] for key in chunk]
        assert read == batch


@pytest.mark.parametrize(
    ("world_size", "per_device", "message"),
    [
        (3, None, "8 cannot be divided evenly by 3 processes"),
        (2, 3, "8 is not a multiple of 2 processes times .*batch_size_per_device 3"),
        (8, None, "1 image per pass, and BatchNorm needs 2"),
    ],
)
def test_batches_that_do_not_come_out_even_are_refused(world_size, per_device, message):
    """The error says which numbers do not fit."""
    config = TrainingConfig(epochs=1, global_batch_size=8, batch_size_per_device=per_device)
    with pytest.raises(UserError, match=message):
        plan_batches(config, world_size, 0)


@pytest.fixture
def words(tiny_tree, tmp_path):
    """Words of the command that trains a run of 48 steps, resuming it."""
    tiny_tree["training"]["epochs"] = 12
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    return ["-m", "rsa_pretrain", "run", path, "--resume"]


def wait_for_checkpoint(process, run_dir, after=0):
    """Wait until the job has saved more checkpoints than an earlier one."""
    deadline = time.monotonic() + 200
    while not [path for path in list_checkpoints(run_dir) if int(path.name[5:]) > after]:
        assert process.poll() is None, "the job ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workers_of(process):
    """Process numbers of a launcher's training processes."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def start(command, tmp_path):
    """Start a job in a separate process group."""
    return subprocess.Popen(
        command,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    )


@pytest.mark.process
def test_torchrun_ends_a_job_that_lost_a_process(words, tmp_path):
    """Kill -9 of one process is one line and an exit code, within a minute."""
    process = start(torchrun(*words), tmp_path)
    wait_for_checkpoint(process, tmp_path / "run")
    os.kill(workers_of(process)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    assert "error: lost contact with another process" in errors
    assert "--resume" in errors


def test_killed_jobs_resume_to_the_same_weights(words, tmp_path, python):
    """Kill -9 of one process, then of the whole job; resumed, the end is that of one go."""
    run_dir = tmp_path / "run"
    first, second = python.start_two(*words)
    wait_for_checkpoint(first, run_dir)
    second.kill()
    assert first.wait() == 2
    assert "error: lost contact with another process" in first.stderr
    reached = int(list_checkpoints(run_dir)[-1].name[5:])
    pair = python.start_two(*words)
    wait_for_checkpoint(pair[0], run_dir, after=reached)
    for one in pair:
        one.kill()
    assert not (run_dir / "backbone.safetensors").exists()
    python.run_two(*words).check_returncode()
    python.run_two(*words[:-1], f"output_dir={tmp_path / 'straight'}").check_returncode()
    one, other = final_state(run_dir), final_state(tmp_path / "straight")
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_sync_batchnorm_on_one_device_is_plain(tiny_tree):
    """With one process there is nothing to share."""
    tiny_tree["training"]["sync_batchnorm"] = True
    method = make_float64_trainer(tiny_tree).state.method
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in method.modules())


@pytest.mark.gpu
@pytest.mark.process
def test_sync_batchnorm_makes_two_gpus_equal_one(tiny_tree, tmp_path):
    """Statistics over both GPUs are those of the whole batch on one, up to float32 rounding."""
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, torch sees {torch.cuda.device_count()}")
    tiny_tree["training"] |= {"device": "cuda", "epochs": 1, "sync_batchnorm": True}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    two = [*torchrun("-m", "rsa_pretrain", "run", path), f"output_dir={tmp_path / 'two'}"]
    subprocess.run(two, env=environment(), check=True)
    one = [sys.executable, "-m", "rsa_pretrain", "run", path, f"output_dir={tmp_path / 'one'}"]
    subprocess.run(one, env=environment() | {"CUDA_VISIBLE_DEVICES": "0"}, check=True)
    ours, theirs = final_state(tmp_path / "two"), final_state(tmp_path / "one")
    for name, tensor in ours.items():
        # Sums over two devices round differently; four steps amplify it.
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4, msg=name)
