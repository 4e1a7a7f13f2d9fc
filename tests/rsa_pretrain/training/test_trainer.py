import copy
import importlib.util
import logging
import math
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image

from rsa_eval.evaluators.knn.online import make_online_knn
from rsa_pretrain.__main__ import main
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.methods.registry import METHODS
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import MetricsLog, read_metrics
from rsa_pretrain.plumbing.stop_signal import StopSignal
from rsa_pretrain.training.trainer import Trainer
from rsa_pretrain.weights.checkpoint import list_checkpoints, load_backbone, load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_resnets")


def make_trainer(tree, *, resume=False, **changes):
    """A trainer of the tiny run; changes are dotted keys with __ for dots."""
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            tree[section][name] = value
        else:
            tree[section] = value
    config = parse_tree(PretrainConfig, tree, "tiny run")
    return Trainer(config, open_images(config.data, "train"), resume=resume)


def assert_same_run(one, other, num_steps=8):
    """Final networks, optimizer, random state and logged numbers are bitwise equal."""
    tensors, metadata, trainer_state = load_checkpoint(one / "checkpoints" / "last")
    tensors_other, metadata_other, trainer_state_other = load_checkpoint(
        other / "checkpoints" / "last"
    )
    assert metadata.step == metadata_other.step == num_steps
    assert tensors.keys() == tensors_other.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, tensors_other[name]), name
    momentum = trainer_state["optimizer"]["state"]
    momentum_other = trainer_state_other["optimizer"]["state"]
    assert momentum.keys() == momentum_other.keys()
    for key, buffers in momentum.items():
        assert torch.equal(buffers["momentum_buffer"], momentum_other[key]["momentum_buffer"])
    assert torch.equal(trainer_state["random"]["cpu"], trainer_state_other["random"]["cpu"])
    assert logged(one) == logged(other)
    backbone, backbone_other = load_backbone(one).backbone, load_backbone(other).backbone
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, backbone_other.state_dict()[name]), name


def logged(run_dir):
    """Metrics without the figures that depend on the clock."""
    clock = {"images_per_second", "data_wait"}
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


@pytest.fixture
def straight(tiny_tree, tmp_path):
    """Folder of the uninterrupted run."""
    assert make_trainer(tiny_tree, output_dir=str(tmp_path / "straight")).run() == 0
    return tmp_path / "straight"


def stop_after(monkeypatch, trainer, num_steps, number=signal.SIGTERM):
    """Let a step of the trainer end with a signal."""
    original = trainer._train_step

    def step_then_signal(batches):
        original(batches)
        if trainer.state.step == num_steps:
            signal.raise_signal(number)

    monkeypatch.setattr(trainer, "_train_step", step_then_signal)


@pytest.mark.parametrize("num_steps", [2, 4, 7])
def test_resume_is_bitwise(tiny_tree, tmp_path, straight, monkeypatch, num_steps):
    """Stopped within or at the end of an epoch and resumed, the run ends where it would have."""
    trainer = make_trainer(tiny_tree, output_dir=str(tmp_path / "resumed"))
    stop_after(monkeypatch, trainer, num_steps)
    assert trainer.run() == 128 + signal.SIGTERM
    assert not (tmp_path / "resumed" / "backbone.safetensors").exists()
    assert list_checkpoints(tmp_path / "resumed")[-1].name == f"step-{num_steps:08d}"
    again = make_trainer(tiny_tree, resume=True)
    assert again.state.step == num_steps
    assert again.run() == 0
    assert_same_run(straight, tmp_path / "resumed")


@pytest.mark.parametrize("name", [name for name in METHODS if name != "rsa"])
def test_resume_is_bitwise_for_every_method(name, small_methods, tiny_tree, tmp_path, monkeypatch):
    """Queue, momentum networks and optimizer resume where they stopped."""
    tiny_tree["method"] = {"name": name} | small_methods[name]
    tiny_tree["training"]["epochs"] = 1
    assert make_trainer(tiny_tree, output_dir=str(tmp_path / "straight")).run() == 0
    trainer = make_trainer(tiny_tree, output_dir=str(tmp_path / "resumed"))
    stop_after(monkeypatch, trainer, 3, signal.SIGUSR1)
    assert trainer.run() == 128 + signal.SIGUSR1
    assert make_trainer(tiny_tree, resume=True).run() == 0
    assert_same_run(tmp_path / "straight", tmp_path / "resumed", num_steps=4)


@pytest.mark.parametrize(
    ("section", "settings", "num_steps"),
    [
        ("optimizer", {"name": "lars", "base_lr": 5.0, "warmup_epochs": 1}, 5),
        ("views", {"implementation": "batched"}, 3),
    ],
)
def test_resume_with_accumulation_is_bitwise(
    tiny_tree, tmp_path, monkeypatch, section, settings, num_steps
):
    """The velocities of LARS are saved; batched views depend on no step before."""
    tiny_tree[section] = tiny_tree.get(section, {}) | settings
    tiny_tree["training"]["batch_size_per_device"] = 4
    assert make_trainer(tiny_tree, output_dir=str(tmp_path / "straight")).run() == 0
    trainer = make_trainer(tiny_tree, output_dir=str(tmp_path / "resumed"))
    stop_after(monkeypatch, trainer, num_steps)
    assert trainer.run() == 128 + signal.SIGTERM
    assert make_trainer(tiny_tree, resume=True).run() == 0
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_resume_with_workers_is_bitwise(tiny_tree, tmp_path, straight, monkeypatch):
    """The number of loader processes may change on the way."""
    trainer = make_trainer(tiny_tree, output_dir=str(tmp_path / "resumed"), data__num_workers=2)
    stop_after(monkeypatch, trainer, 3, signal.SIGINT)
    assert trainer.run() == 128 + signal.SIGINT
    assert make_trainer(tiny_tree, resume=True, data__num_workers=1).run() == 0
    assert_same_run(straight, tmp_path / "resumed")


def forget_settings(monkeypatch, trainer, section, *names):
    """Let checkpoints be those of a time before there were some settings."""
    before = trainer.state.trainer_state

    def state_without_them():
        state = before()
        for name in names:
            del state["config"][section][name]
        return state

    monkeypatch.setattr(trainer.state, "trainer_state", state_without_them)


def test_a_setting_newer_than_the_checkpoint_counts_as_its_default(tiny_tree, monkeypatch):
    """A run saved before there were batched views resumes with Pillow's, and only with them."""
    trainer = make_trainer(tiny_tree)
    stop_after(monkeypatch, trainer, 4)
    forget_settings(monkeypatch, trainer, "views", "implementation")
    trainer.run()
    with pytest.raises(UserError, match=r"views\.implementation \(was pillow, is batched\)"):
        make_trainer(tiny_tree | {"views": {"implementation": "batched"}}, resume=True)
    assert make_trainer(tiny_tree, resume=True).state.step == 4


def test_a_signal_between_steps_loses_nothing(tiny_tree, monkeypatch):
    """A signal that arrives while a step is logged lets the next step finish and be saved."""
    trainer = make_trainer(tiny_tree)
    original = trainer._write_metrics

    def write_then_signal(*args, **options):
        if trainer.state.step == 2:
            signal.raise_signal(signal.SIGTERM)
        original(*args, **options)

    monkeypatch.setattr(trainer, "_write_metrics", write_then_signal)
    assert trainer.run() == 143
    assert [path.name for path in list_checkpoints(trainer.config.output_dir)] == ["step-00000003"]


def test_resume_from_an_earlier_checkpoint_drops_later_metrics(tiny_tree, tmp_path, straight):
    """Lines logged after the checkpoint are written once, not twice."""
    folder = tmp_path / "straight" / "checkpoints"
    (folder / "last").unlink()
    (folder / "last").symlink_to("step-00000004")
    (tmp_path / "straight" / "backbone.safetensors").unlink()
    before = logged(straight)
    assert make_trainer(tiny_tree, output_dir=str(straight), resume=True).run() == 0
    assert logged(straight) == before


def test_resume_without_the_link_takes_the_newest_checkpoint(tiny_tree, straight):
    """A folder copied without its links resumes all the same."""
    (straight / "checkpoints" / "last").unlink()
    trainer = make_trainer(tiny_tree, output_dir=str(straight), resume=True)
    assert trainer.state.step == trainer.num_steps


def test_run_folder_holds_what_the_format_says(straight):
    """Settings, logs, machines, checkpoints and the final backbone with its metadata."""
    names = {path.name for path in straight.iterdir()}
    assert names == {
        ".lock",
        "config.yaml",
        "metrics.jsonl",
        "machines.json",
        "tensorboard",
        "checkpoints",
        "backbone.safetensors",
    }
    metadata = load_backbone(straight).metadata
    assert (metadata.method, metadata.data_set, metadata.step) == ("rsa", "digits", 8)
    assert (metadata.epochs, metadata.image_size) == (2.0, 16)
    assert torch.__version__.startswith(metadata.library_versions["torch"])
    assert [path.name for path in list_checkpoints(straight)] == ["step-00000004", "step-00000008"]


def test_logged_schedules_are_the_recipes(straight):
    """Rate, beta and momentum of step k are those of progress k / K."""
    lines = logged(straight)
    assert [line["step"] for line in lines] == list(range(1, 9))
    for k, line in enumerate(lines):
        falling = (math.cos(math.pi * k / 8) + 1) / 2
        assert line["lr"] == pytest.approx(0.5 * 8 / 256 * falling, rel=1e-6)
        assert line["beta"] == pytest.approx(0.3 * falling, rel=1e-6)
        assert line["ema_momentum"] == pytest.approx(1 - 0.01 * falling, rel=1e-6)
        parts = (1 - line["beta"]) * line["loss_weak"] + line["beta"] * line["loss_aggressive"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)


def test_seeds_differ_and_repeat(tiny_tree, tmp_path, straight):
    """Another seed gives other losses."""
    make_trainer(tiny_tree, output_dir=str(tmp_path / "other"), seed=1).run()
    assert logged(tmp_path / "other")[0]["loss"] != logged(straight)[0]["loss"]


def test_non_finite_loss_stops_and_leaves_the_last_good_checkpoint(tiny_tree, monkeypatch):
    """The error names the checkpoint; it is the last one before the break."""
    trainer = make_trainer(tiny_tree)
    original = trainer._train_step

    def poisoned(batches):
        views, labels = next(batches)
        if trainer.state.step == 5:
            views[0].fill_(float("inf"))
        original(iter([(views, labels)]))

    monkeypatch.setattr(trainer, "_train_step", poisoned)
    with pytest.raises(UserError, match=r"loss is nan at step 6 of 8; .*step-00000004'"):
        trainer.run()
    assert [path.name for path in list_checkpoints(trainer.config.output_dir)] == ["step-00000004"]


def test_non_finite_weights_are_never_saved(tiny_tree, monkeypatch):
    """A finite loss whose step breaks a weight does not reach a checkpoint."""
    trainer = make_trainer(tiny_tree, monitor__log_every_steps=100)
    original = trainer._train_step

    def poisoned(batches):
        original(batches)
        if trainer.state.step == 4:
            trainer.state.method.predictor[3].weight.data[0, 0] = float("nan")

    monkeypatch.setattr(trainer, "_train_step", poisoned)
    with pytest.raises(UserError, match=r"'predictor.3.weight' contains NaN .*no checkpoint yet"):
        trainer.run()
    assert list_checkpoints(trainer.config.output_dir) == []


def test_a_taken_run_folder_is_refused(tiny_tree, straight):
    """Without --resume nothing is overwritten."""
    with pytest.raises(UserError, match=r"already contains a run .*--resume"):
        make_trainer(tiny_tree, output_dir=str(straight))


def test_a_run_older_than_the_turning_of_files_goes_on_with_stored_ones(
    tiny_tree, tmp_path, monkeypatch
):
    """Its images were not turned; the refusal says so, and the limit of pixels may be raised."""
    for number in range(8):
        path = tmp_path / "train" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 50).save(path)
    files = {"name": "imagefolder", "root": str(tmp_path), "exif_orientation": False}
    tiny_tree["data"] = {"image_size": 16, "num_workers": 0} | files
    trainer = make_trainer(tiny_tree)
    stop_after(monkeypatch, trainer, 1)
    forget_settings(monkeypatch, trainer, "data", "exif_orientation", "max_megapixels")
    trainer.run()
    with pytest.raises(UserError, match=r"data\.exif_orientation \(was False, is True\)"):
        make_trainer(tiny_tree, resume=True, data__exif_orientation=True)
    again = make_trainer(
        tiny_tree, resume=True, data__exif_orientation=False, data__max_megapixels=1
    )
    assert again.state.step == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__epochs": 3}, r"training\.epochs \(was 2, is 3\)"),
        ({"seed": 4, "method__beta_base": 0.1}, r"method\.beta_base .*seed"),
        ({"data__subset_seed": 1}, r"data\.subset_seed"),
    ],
)
def test_resuming_another_run_is_refused(tiny_tree, straight, changes, message):
    """Settings that decide the result must be the saved ones."""
    with pytest.raises(UserError, match=message):
        make_trainer(tiny_tree, output_dir=str(straight), resume=True, **changes)


def test_resuming_on_other_images_is_refused(tiny_tree, straight):
    """The same settings on changed files are another run."""
    tiny_tree["output_dir"] = str(straight)
    config = parse_tree(PretrainConfig, tiny_tree, "tiny run")
    images = open_images(config.data, "train")
    images.rows = images.rows[::-1].copy()
    with pytest.raises(UserError, match="training images are not those"):
        Trainer(config, images, resume=True)


def test_batch_larger_than_the_data_is_refused(tiny_tree):
    """There would be no step to take."""
    with pytest.raises(UserError, match=r"64 is more than the 32 training images; lower it$"):
        make_trainer(tiny_tree, training__global_batch_size=64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_an_error(tiny_tree):
    """Neither a GPU nor its fp16 is silently replaced."""
    with pytest.raises(UserError, match="torch sees no GPU"):
        make_trainer(tiny_tree, training__device="cuda")
    with pytest.raises(UserError, match="'fp16' needs a GPU"):
        make_trainer(tiny_tree, training__device="cpu", training__precision="fp16")


@pytest.mark.gpu
@pytest.mark.parametrize("views", ["pillow", "batched"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precisions_train_on_a_gpu(tiny_tree, precision, views):
    """Each precision takes its steps; the scaler's state is saved with fp16."""
    tiny_tree["views"] = {"implementation": views}
    trainer = make_trainer(tiny_tree, training__device="cuda", training__precision=precision)
    assert trainer.run() == 0
    _, _, trainer_state = load_checkpoint(trainer.config.output_dir / "checkpoints" / "last")
    assert bool(trainer_state["scaler"]) == (precision == "fp16")


@pytest.mark.parametrize(
    ("width", "layout"), [(64, torch.contiguous_format), (256, torch.channels_last)]
)
def test_weights_and_views_have_the_layout_of_training(tiny_tree, width, layout):
    """The narrow networks of these tests are contiguous, and those of 16 channels are not."""
    tiny_tree["backbone"]["width"] = width
    trainer = make_trainer(tiny_tree)
    seen = []
    backbone = trainer.state.method.backbone
    backbone.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone.layer2[0].downsample[0].register_forward_pre_hook(
        lambda conv, inputs: seen.extend([inputs[0], conv.weight])
    )
    trainer.run()
    assert seen
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in seen)


def test_bf16_autocast_reaches_the_networks(tiny_tree, monkeypatch):
    """The backbone computes in bfloat16 and the loss in float32."""
    trainer = make_trainer(tiny_tree, training__precision="bf16")
    seen = []
    trainer.state.method.backbone.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    scalars = trainer.state.method.scalars(0.0)
    output = trainer._passes([torch.randn(8, 3, 16, 16) for _ in range(4)], scalars, None)
    assert set(seen) == {torch.bfloat16}
    assert output.loss.dtype == torch.float32


def test_a_process_stops_cleanly_on_sigterm(tiny_tree, tmp_path, python):
    """The command saves, says how to resume, exits with 143, and --resume finishes the run."""
    tiny_tree["training"]["epochs"] = 500
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    process = python.start("-m", "rsa_pretrain", "run", path)
    run_dir = tmp_path / "run"
    while not list_checkpoints(run_dir):
        assert process.poll() is None, process.stderr
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 143
    assert "stopped by SIGTERM" in process.stderr
    assert "Traceback" not in process.stderr
    _, metadata, _ = load_checkpoint(run_dir / "checkpoints" / "last")
    assert 4 <= metadata.step < 2000


def test_metrics_log_survives_a_cut_line(tmp_path):
    """A line half-written by a kill is dropped; a broken line in the middle is an error."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    with MetricsLog(tmp_path, 1) as log:
        log.write(2, {"loss": 1.0})
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        read_metrics(path)


def test_a_second_signal_acts_at_once():
    """The first is noted, the second meets the handler that was there before."""
    # A shell that starts the tests in the background lets them ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received is signal.SIGINT
        assert stop.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_accumulated_passes_make_one_step(tiny_tree, tmp_path):
    """The gradient of a step in two passes is the mean of the gradients of its halves."""
    trainer = make_trainer(tiny_tree, training__batch_size_per_device=4)
    halves = [next(batches) for batches in [trainer._batches()] for _ in range(2)]
    reference = copy.deepcopy(trainer.state.method)
    losses = []
    for views, _ in halves:
        losses.append(reference(views, reference.scalars(0.0)).loss)
        (losses[-1] / 2).backward()
    trainer._train_step(iter(halves))
    for ours, theirs in zip(trainer.state.method.parameters(), reference.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)
    means = trainer._meter.read()
    assert trainer.state.step == 1
    assert means["loss"] == pytest.approx(sum(losses).item() / 2, rel=1e-6)
    assert means["beta"] == pytest.approx(0.3)


def test_gradient_norm_is_that_of_the_step(tiny_tree):
    """The logged norm equals the norm of all gradients, computed from float64."""
    trainer = make_trainer(tiny_tree)
    trainer._train_step(trainer._batches())
    gradients = [p.grad for p in trainer.state.method.parameters() if p.grad is not None]
    expected = sum(gradient.double().pow(2).sum().item() for gradient in gradients) ** 0.5
    assert trainer._grad_norm["grad_norm"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__batch_size_per_device": 3}, "8 is not a multiple of 1 processes times .* 3"),
        ({"training__batch_size_per_device": 1}, "BatchNorm needs 2"),
        (
            {
                "training__batch_size_per_device": 4,
                "method": {"name": "simclr", "hidden_dim": 8, "temperature": 0.5},
            },
            "'simclr' needs its whole batch in one pass, but it is split, 8 = 1 x 2 x 4; set",
        ),
        (
            {"method": {"name": "supervised", "num_classes": 9}},
            "num_classes is 9, but the digits images have 10 classes; set method.num_classes=10$",
        ),
    ],
)
def test_batches_and_labels_that_do_not_fit_are_refused(tiny_tree, changes, message):
    """Before anything is written."""
    with pytest.raises(UserError, match=message):
        make_trainer(tiny_tree, **changes)
    assert not Path(tiny_tree["output_dir"]).exists()


def test_a_change_of_batchnorm_groups_is_told(tiny_tree, monkeypatch, caplog):
    """Resuming with another batch per device works, and says what it changes."""
    trainer = make_trainer(tiny_tree)
    stop_after(monkeypatch, trainer, 2)
    trainer.run()
    with caplog.at_level(logging.WARNING):
        again = make_trainer(tiny_tree, resume=True, training__batch_size_per_device=4)
    assert "come from 4 images at a time, before the stop from 8" in caplog.text
    assert again.run() == 0


def test_the_monitor_measures_held_out_images(tiny_tree):
    """knn_top1 is logged at the end of each epoch, and the run equals one that is not watched."""
    calls = []

    def evaluate(backbone):
        calls.append(backbone.training)
        return {"knn_top1": 12.5}

    tiny_tree["monitor"]["knn_every_epochs"] = 1
    config = parse_tree(PretrainConfig, tiny_tree, "tiny run")
    trainer = Trainer(config, open_images(config.data, "train"), resume=False, evaluate=evaluate)
    assert trainer.run() == 0
    lines = read_metrics(trainer.config.output_dir / "metrics.jsonl")
    assert [line["step"] for line in lines if "knn_top1" in line] == [4, 8]
    assert len(calls) == 2


def test_the_command_watches_by_neighbours_and_leaves_training_alone(tiny_tree, tmp_path):
    """The online kNN holds images out, logs its top-1 and their rank, and moves no weight."""
    tiny_tree["data"]["num_train_images"] = 52
    tiny_tree["monitor"] |= {"knn_every_epochs": 1, "num_held_out_images": 20, "knn_k": 3}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    assert main(["run", str(path)]) == 0
    watched = tmp_path / "run"
    assert [0 <= line["knn_top1"] <= 100 for line in logged(watched) if "knn_top1" in line] == [
        True
    ] * 2
    config = parse_tree(PretrainConfig, tiny_tree | {"output_dir": str(tmp_path / "plain")}, "run")
    rest, held_out = open_images(config.data, "train").hold_out(20, config.seed)
    assert (len(rest), len(held_out)) == (32, 20)
    assert Trainer(config, rest, resume=False).run() == 0
    assert_same_run_but_for(tmp_path / "plain", watched, "knn_top1", "rankme")


def test_the_monitor_takes_unbalanced_classes(tiny_tree):
    """Digits have 170 to 180 images a class; both a part and all of the rest serve as bank."""
    for num_bank_images in (300, 5000):
        tiny_tree["data"]["num_train_images"] = None
        tiny_tree["monitor"] |= {"knn_every_epochs": 1, "num_bank_images": num_bank_images}
        config = parse_tree(PretrainConfig, tiny_tree, "run")
        images, held_out = open_images(config.data, "pretrain").hold_out(100, config.seed)
        evaluate = make_online_knn(config, images, held_out, torch.device("cpu"))
        backbone = build_backbone(config.backbone).train()
        assert 0 <= evaluate(backbone)["knn_top1"] <= 100
        assert backbone.training


def assert_same_run_but_for(one, other, *metrics):
    """Equal final weights and metrics, some metrics apart."""
    lines = [{k: v for k, v in line.items() if k not in metrics} for line in logged(other)]
    assert logged(one) == lines
    tensors, _, _ = load_checkpoint(one / "checkpoints" / "last")
    tensors_other, _, _ = load_checkpoint(other / "checkpoints" / "last")
    for name, tensor in tensors.items():
        assert torch.equal(tensor, tensors_other[name]), name


def test_weights_and_biases_is_an_extra(tmp_path, monkeypatch):
    """Without the package the error says how to get it; with it each line is logged."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rsa-toolkit\[wandb\]'"):
        MetricsLog(tmp_path, 0, "project")
    assert not list(tmp_path.iterdir())
    seen = []
    fake = SimpleNamespace(
        init=lambda **settings: SimpleNamespace(
            log=lambda metrics, step: seen.append((step, metrics)),
            finish=lambda exit_code: seen.append(exit_code),
        )
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: fake)
    with MetricsLog(tmp_path, 0, "project") as log:
        log.write(3, {"loss": 1.0})
    assert seen == [(3, {"loss": 1.0}), 0]


def test_compiled_backbones_train(tiny_tree, monkeypatch):
    """A step of compiled backbones moves them like plain ones, under the same names."""
    plain = make_trainer(tiny_tree)
    plain._train_step(plain._batches())
    compile_module = torch.nn.Module.compile
    # The eager backend traces without generating code, which would take minutes.
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **options: compile_module(self, backend="eager", **options),
    )
    compiled = make_trainer(tiny_tree, training__compile=True)
    compiled._train_step(compiled._batches())
    children = compiled.state.method.named_children()
    names = {name for name, child in children if child._compiled_call_impl}
    assert names == {"backbone", "target_backbone"}
    expected = plain.state.method.state_dict()
    assert compiled.state.method.state_dict().keys() == expected.keys()
    for name, tensor in compiled.state.method.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
