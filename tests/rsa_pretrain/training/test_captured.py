"""Captured passes: replayed on a CPU by a tape, on a GPU for real."""

import copy
import json
import logging
import re
import signal
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
from host_reads import WithoutHostReads
from tape import Tape
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.methods.registry import METHODS
from rsa_pretrain.methods.rsa import RSA
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.device import autocast, without_tf32
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.training import captured
from rsa_pretrain.training.captured import EAGER_STEPS, CapturedPasses, capture_stream
from rsa_pretrain.training.passes import EagerPasses
from rsa_pretrain.training.run_state import build_method
from rsa_pretrain.training.trainer import Trainer
from rsa_pretrain.views.one_image import VIEW_NAMES
from rsa_pretrain.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_resnets")
NUM_STEPS = 8


@pytest.fixture
def tapes(monkeypatch):
    """Every run's graph, in order: trainers on a CPU record tapes."""
    made = []

    def make_tape():
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(captured, "find_obstacle", lambda *_: None)
    monkeypatch.setattr(captured, "CudaGraph", make_tape)
    return made


@pytest.fixture
def make_trainer(tiny_tree, small_methods, tmp_path):
    """A function that makes a trainer of the tiny run in a given folder."""

    def make(folder, method="rsa", resume=False, optimizer=None, log_every=1, **training):
        tree = copy.deepcopy(tiny_tree)
        # At 16 px the last stage would see single pixels, where a CPU's bf16 convolution of
        # torch 2.14 reads memory that nobody wrote.
        tree["data"]["image_size"] = 32
        tree["method"] = {"name": method} | small_methods[method]
        tree["training"] |= training
        tree["monitor"]["log_every_steps"] = log_every
        tree["optimizer"] = optimizer or tree["optimizer"]
        tree["output_dir"] = str(tmp_path / folder)
        config = parse_tree(PretrainConfig, tree, "tiny run")
        return Trainer(config, open_images(config.data, "train"), resume=resume)

    return make


def outcome(trainer):
    """Networks, momentum and logged numbers of a run, without those of the clock."""
    folder = trainer.config.output_dir
    tensors, _, state = load_checkpoint(folder / "checkpoints" / "last")
    for number, buffers in state["optimizer"]["state"].items():
        tensors[f"momentum {number}"] = buffers["momentum_buffer"]
    log = read_metrics(folder / "metrics.jsonl")
    clock = ("images_per_second", "data_wait")
    return tensors, [{k: v for k, v in line.items() if k not in clock} for line in log]


def machine_file(trainer):
    """Mode of the steps in the run's machine file."""
    machines = json.loads((trainer.config.output_dir / "machines.json").read_text())
    return [machine["steps"] for machine in machines]


def assert_equal(one, other, **tolerance):
    """Two outcomes are equal, bitwise without a tolerance."""
    (tensors, log), (expected, expected_log) = one, other
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(
            tensor, expected[name], msg=name, **(tolerance or {"rtol": 0, "atol": 0})
        )
    if tolerance:
        losses = [line["loss"] for line in log]
        assert losses == pytest.approx([line["loss"] for line in expected_log], rel=1e-2)
    else:
        assert log == expected_log


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_replayed_steps_equal_eager_ones(method, precision, make_trainer, tapes, monkeypatch):
    """A captured run is bitwise the eager one: nothing that changes is baked into the graph."""
    replayed = make_trainer("captured", method, precision=precision)
    assert replayed.run() == 0
    (tape,) = tapes
    assert tape.num_replays == NUM_STEPS - EAGER_STEPS
    assert machine_file(replayed) == ["captured"]
    monkeypatch.undo()
    eager = make_trainer("eager", method, precision=precision)
    assert eager.run() == 0
    assert machine_file(eager) == [None]
    assert_equal(outcome(replayed), outcome(eager))


def test_replayed_steps_equal_eager_ones_with_lars(make_trainer, tapes, monkeypatch):
    """The optimizer, outside the graph, sees the gradients of each replay."""
    lars = {"name": "lars", "base_lr": 0.5, "weight_decay": 1e-6}
    replayed = make_trainer("captured", optimizer=lars)
    replayed.run()
    monkeypatch.undo()
    eager = make_trainer("eager", optimizer=lars)
    eager.run()
    assert tapes[0].num_replays == NUM_STEPS - EAGER_STEPS
    assert_equal(outcome(replayed), outcome(eager))


def stop_at(step, trainer, monkeypatch):
    """Let a run save and end at a step, as a signal would."""
    monkeypatch.setattr(trainer, "_checkpoint_due", lambda: trainer.state.step == step)
    take_step = trainer._train_step

    def step_and_end(batches):
        take_step(batches)
        if trainer.state.step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(trainer, "_train_step", step_and_end)


def test_resume_across_a_capture(make_trainer, tapes, monkeypatch):
    """A run stopped after its capture is captured again, and ends as an eager run does."""
    first = make_trainer("captured")
    stop_at(5, first, monkeypatch)
    assert first.run() == 143
    second = make_trainer("captured", resume=True)
    assert second.state.step == 5
    assert second.run() == 0
    assert [tape.num_replays for tape in tapes] == [2, 0]
    monkeypatch.undo()
    eager = make_trainer("eager")
    eager.run()
    assert_equal(outcome(second), outcome(eager))


def test_a_number_in_the_graph_would_be_noticed(make_trainer, tapes, monkeypatch):
    """With beta as the float that it was at the capture, the run ends elsewhere."""
    forward = RSA.forward
    monkeypatch.setattr(
        RSA, "forward", lambda self, views, scalars: forward(self, views, self.scalars(0.0))
    )
    baked = make_trainer("captured")
    baked.run()
    monkeypatch.undo()
    eager = make_trainer("eager")
    eager.run()
    with pytest.raises(AssertionError):
        assert_equal(outcome(baked), outcome(eager))


def test_a_failed_capture_falls_back_to_eager_steps(make_trainer, tapes, monkeypatch, caplog):
    """A host read cannot be captured: one warning and the machine file say so; the run is whole."""
    forward = RSA.forward

    def reading(self, views, scalars):
        return forward(self, views, {"beta": float(scalars["beta"])})

    monkeypatch.setattr(RSA, "forward", reading)
    failed = make_trainer("captured")
    with caplog.at_level(logging.WARNING):
        assert failed.run() == 0
    (warning,) = caplog.messages
    reason = "the capture failed: aten._local_scalar_dense.default reads from the device"
    assert warning == f"steps are not captured as a CUDA graph: {reason}"
    assert machine_file(failed) == [f"eager: {reason}"]
    assert tapes[0].num_replays == 0
    monkeypatch.undo()
    eager = make_trainer("eager")
    eager.run()
    assert_equal(outcome(failed), outcome(eager))


def test_a_required_capture_that_fails_is_an_error(make_trainer, tapes, monkeypatch):
    """``true`` promises captured steps."""

    def refuse(*_):
        try:
            raise RuntimeError("no\nat all")
        finally:
            raise RuntimeError("the capture cannot be ended")

    monkeypatch.setattr(Tape, "record", refuse)
    with pytest.raises(UserError, match=r"true, but the capture failed: no; set it to auto"):
        make_trainer("captured", cuda_graph=True).run()


def test_a_required_capture_on_a_cpu_is_an_error(make_trainer):
    """A CPU has no CUDA graphs; ``auto`` and ``false`` are silent there."""
    with pytest.raises(UserError, match=r"true, but the device is 'cpu', and only a GPU has CUDA"):
        make_trainer("captured", cuda_graph=True)
    for setting in ("auto", False):
        assert isinstance(make_trainer("eager", cuda_graph=setting)._passes, EagerPasses)


def a_run(setting="auto", world_size=1, num_passes=1, is_replayable=True):
    """As much of a run on a GPU as decides whether it is captured."""
    return SimpleNamespace(
        state=SimpleNamespace(
            config=SimpleNamespace(training=SimpleNamespace(cuda_graph=setting)),
            device=torch.device("cuda"),
            plan=SimpleNamespace(world_size=world_size, num_passes=num_passes),
            method=SimpleNamespace(is_replayable=is_replayable),
        )
    )


@pytest.mark.parametrize(
    ("run", "profile", "obstacle"),
    [
        (a_run(world_size=2), False, "2 processes exchange gradients during the backward pass"),
        (a_run(num_passes=4), False, "a step takes 4 passes, and a graph holds one"),
        (a_run(), True, "--profile cannot tell the parts of a replayed step apart"),
        (
            a_run(is_replayable=False),
            False,
            "the forward pass of SimpleNamespace changes more than tensors",
        ),
    ],
)
def test_what_cannot_be_captured_is_said_once(run, profile, obstacle, caplog):
    """Each obstacle is logged and noted; a required capture is refused."""
    with caplog.at_level(logging.WARNING):
        passes, steps = captured.choose_passes(run, profile, pytest.fail)
    assert passes is run
    assert steps == f"eager: {obstacle}"
    assert caplog.messages == [f"steps are not captured as a CUDA graph: {obstacle}"]
    run.state.config.training.cuda_graph = True
    with pytest.raises(UserError, match=re.escape(f"training.cuda_graph is true, but {obstacle}")):
        captured.choose_passes(run, profile, pytest.fail)


def test_a_gpu_is_captured_unless_the_settings_forbid_it(tapes, monkeypatch, caplog):
    """Without an obstacle ``auto`` and ``true`` capture, and ``false`` says nothing."""
    for setting in ("auto", True):
        passes, steps = captured.choose_passes(a_run(setting), False, pytest.fail)
        assert isinstance(passes, CapturedPasses)
        assert steps == "captured"
    run = a_run(False)
    assert captured.choose_passes(run, False, pytest.fail) == (run, "eager")
    assert caplog.messages == []


def parsed(tree, name, small_methods, **training):
    """A run's settings."""
    tree = copy.deepcopy(tree)
    tree["method"] = {"name": name} | small_methods[name]
    tree["training"] |= training
    return parse_tree(PretrainConfig, tree, "tiny run")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_forward_on_a_gpu_of_no_memory(name, precision, tiny_tree, small_methods, monkeypatch):
    """On fake CUDA tensors no operation mixes devices or reads a number, in any precision."""
    config = parsed(tiny_tree, name, small_methods)
    cuda = torch.device("cuda", 0)
    # A target is a deep copy of its network, and the mode is not.
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)
    # Autocast asks a driver whether the device knows bf16.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.amp.autocast_mode, "is_autocast_available", lambda *_: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    with FakeTensorMode(), torch.device(cuda):
        method = build_method(config).train()
        num_views = len(VIEW_NAMES[config.method.view_set])
        views = [torch.randn(8, 3, 32, 32) for _ in range(num_views)]
        scalars = {name: torch.zeros((), dtype=torch.float64) for name in method.scalars(0.0)}
        inputs = (views, scalars)
        if method.needs_labels:
            inputs += (torch.zeros(8, dtype=torch.int64),)
        with WithoutHostReads(), autocast(precision, cuda):
            output = method(*inputs)
        method.after_optimizer_step(0.0, [output])
    assert output.loss.device == cuda
    assert output.loss.dtype == torch.float32
    assert {metric.dtype for metric in output.metrics.values()} == {torch.float32}


@pytest.mark.parametrize("name", ["rsa", "simsiam_rsa"])
def test_changing_scalars_need_one_trace(name, tiny_tree, small_methods):
    """The whole forward is one graph, traced once for all values of beta."""
    method = build_method(parsed(tiny_tree, name, small_methods)).train()
    views = [torch.randn(4, 3, 16, 16) for _ in range(4)]
    counter = CompileCounter()
    compiled = torch.compile(
        lambda *inputs: method(*inputs).loss, backend=counter, fullgraph=True, dynamic=False
    )
    losses = set()
    for progress in (0.0, 0.3, 0.6, 0.9):
        beta = torch.tensor(method.scalars(progress)["beta"], dtype=torch.float64)
        losses.add(compiled(views, {"beta": beta}).item())
    assert counter.frame_count == 1
    assert len(losses) == 4


LARS = {"name": "lars", "base_lr": 0.5, "weight_decay": 1e-6}


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "optimizer"), [("fp32", None), ("bf16", None), ("fp16", None), ("fp32", LARS)]
)
@pytest.mark.parametrize("method", METHODS)
def test_captured_steps_follow_eager_ones_on_a_gpu(method, precision, optimizer, make_trainer):
    """Ten steps end at the same weights, up to the order of a GPU's sums."""
    settings = {"precision": precision, "device": "cuda", "epochs": 3}
    with without_tf32(precision):
        replayed = make_trainer(
            "captured", method, optimizer=optimizer, cuda_graph=True, **settings
        )
        replayed.run()
        eager = make_trainer("eager", method, optimizer=optimizer, cuda_graph=False, **settings)
        eager.run()
    assert machine_file(replayed) == ["captured"]
    assert machine_file(eager) == ["eager"]
    tolerance = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 2e-2}[precision]
    assert_equal(outcome(replayed), outcome(eager), rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
def test_resume_across_a_capture_on_a_gpu(make_trainer, monkeypatch):
    """A stopped and resumed captured run ends where the straight one does."""
    settings = {"device": "cuda", "cuda_graph": True}
    with without_tf32("fp32"):
        first = make_trainer("stopped", **settings)
        stop_at(5, first, monkeypatch)
        assert first.run() == 143
        monkeypatch.undo()
        second = make_trainer("stopped", resume=True, **settings)
        second.run()
        straight = make_trainer("straight", **settings)
        straight.run()
    assert_equal(outcome(second), outcome(straight), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_steps_between_two_lines_of_the_log_never_wait(make_trainer):
    """Nine captured steps run while torch raises at whatever waits for the GPU."""
    settings = {"device": "cuda", "cuda_graph": True, "precision": "bf16", "epochs": 5}
    trainer = make_trainer("run", log_every=100, **settings)
    with capture_stream(trainer.device):
        batches = iter(list(trainer._batches()))
        for _ in range(EAGER_STEPS + 1):
            trainer._train_step(batches)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(9):
                trainer._train_step(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_memory_stays_flat_over_500_replays(make_trainer):
    """After 512 captured steps no more is allocated than after 16."""
    settings = {"device": "cuda", "cuda_graph": True, "epochs": 130}
    trainer = make_trainer("run", log_every=10_000, **settings)
    with capture_stream(trainer.device), closing(trainer._batches()) as batches:
        allocated = []
        for num_steps in (16, 496):
            for _ in range(num_steps):
                trainer._train_step(batches)
            torch.cuda.synchronize()
            allocated.append(torch.cuda.memory_allocated())
    assert allocated[1] <= allocated[0]
