import copy
import math
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from rsa_eval.__main__ import main
from rsa_eval.config import result_settings
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.finetune.batches import EvenOrder, training_steps
from rsa_eval.evaluators.finetune.evaluator import evaluate_finetune, finetune_deviations
from rsa_eval.evaluators.finetune.settings import FinetuneConfig, TuningConfig
from rsa_eval.evaluators.finetune.task import ClassTask
from rsa_eval.evaluators.finetune.tuning import (
    Classifier,
    Tuning,
    learning_rate,
    set_bn_momentum,
)
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.shared.resumable import StateFile
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Result, read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import Stopped

SHORT = {"epochs": 2, "milestones": [1], "batch_size": 8}


def _config(knn_config: KNNConfig, **changes: Any) -> FinetuneConfig:
    data = to_tree(knn_config.data) | {"image_size": 16, "num_train_images": 24}
    tree = {"data": data, "device": "cpu", "batch_size": 16}
    settings = {"subset": {"per_class": 2}, "tuning": SHORT} | changes
    return parse_tree(FinetuneConfig, tree | settings, "test")


def _evaluate(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, **changes: Any
) -> Result:
    return evaluate_finetune(subject, _config(knn_config, **changes), workspace)


def _raise_at_step(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Let a signal arrive before the step-th step from now on."""
    original, taken = Tuning._take_step, []

    def taking_step(self: Tuning, *arguments: Any) -> None:
        taken.append(1)
        if len(taken) == step:
            signal.raise_signal(number)
        original(self, *arguments)

    monkeypatch.setattr(Tuning, "_take_step", taking_step)


def test_weights_and_images_have_the_layout_of_training(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Contiguous for these narrow networks, in which oneDNN has no fault."""
    seen: list[torch.Tensor] = []

    def note(conv: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if conv.training:
            seen.extend([inputs[0], conv.get_parameter("weight")])

    for layer in (subject.backbone.conv1, subject.backbone.layer2[0].downsample[0]):
        layer.register_forward_pre_hook(note)
    _evaluate(subject, knn_config, workspace)
    assert seen
    assert all(tensor.is_contiguous() for tensor in seen)


def test_rates_by_hand() -> None:
    """At batch 128 a rate of 0.2 is 0.1, a fifth of it from epoch 12, a twenty-fifth from 16."""
    tuning = TuningConfig(batch_size=128)
    rates = [learning_rate(tuning, 0.2, epoch, 0.5) for epoch in (0, 11, 12, 15, 16, 19)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004])


def test_a_cosine_by_hand() -> None:
    """Of a rate of 0.1 all is left at the start, half in the middle and nothing at the end."""
    tuning = TuningConfig(batch_size=128, schedule="cosine", milestones=())
    rates = [learning_rate(tuning, 0.2, 0, progress) for progress in (0.0, 1 / 3, 0.5, 1.0)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.0])


@pytest.mark.parametrize(("steps", "kept"), [(1, 0.9), (8, 0.9), (100, 0.9), (200, 0.95)])
def test_momentum_of_batchnorm_by_hand(steps: int, kept: float) -> None:
    """max(1 - 10/s, 0.9) of the statistics is kept: a mean of 1, from 0, becomes the rest."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3)))
    set_bn_momentum(network, steps)
    network[1](torch.ones(4, 3, 2, 2))
    assert network[1].running_mean.tolist() == pytest.approx([1 - kept] * 3)
    assert network[2][0].momentum == network[1].momentum


def test_steps_end_within_an_epoch() -> None:
    """Six steps of 53 images are an epoch of four and two more, of 14 and 13 images."""
    tuning = TuningConfig(epochs=None, steps=6, milestones=(), batch_size=16)
    order = EvenOrder(53, tuning, seed=0)
    assert [size for _, size in order.shares(0)] == [14, 13, 13, 13, 14, 13]
    assert [order.num_images_in(count) for count in range(5)] == [0, 14, 27, 40, 53]


def test_each_image_once_an_epoch_in_equal_steps() -> None:
    """53 images in steps of at most 16 make four steps of 14, 13, 13 and 13."""
    order = EvenOrder(53, TuningConfig(epochs=2, milestones=(), batch_size=16), seed=0)
    steps = list(order.shares(0))
    assert [size for _, size in steps] == [14, 13, 13, 13] * 2
    assert [len(keys) for keys, _ in steps] == [size for _, size in steps]
    counted = Counter(key for keys, _ in steps for key in keys)
    assert set(counted.values()) == {1}
    assert set(counted) == {(epoch, image) for epoch in range(2) for image in range(53)}
    assert list(order.shares(5)) == steps[5:]


def test_a_single_image_in_a_step_is_refused() -> None:
    """BatchNorm cannot normalise one image."""
    with pytest.raises(UserError, match=r"3 labelled images in batches of at most 2 .* 1 per step"):
        EvenOrder(3, TuningConfig(batch_size=2), seed=0)


def _literal_tuning(
    subject: Subject, config: FinetuneConfig, order: EvenOrder
) -> tuple[nn.Module, nn.Module]:
    """Fine-tune as the protocol is written: cross-entropy, momentum, two rates, by hand."""
    backbone = copy.deepcopy(subject.backbone).double().train()
    head = copy.deepcopy(Classifier(subject.backbone, 10, config.seed).head).double()
    parameters = [*backbone.parameters(), *head.parameters()]
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    num_backbone = len(list(backbone.parameters()))
    images = open_images(config.data, "train")
    for step, (views, labels, _) in enumerate(training_steps(subject, images, order, 0, config)):
        rate = 8 / 256 * (0.2 if step >= order.steps_per_epoch else 1)
        loss = functional.cross_entropy(head(backbone(views.double())), labels)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for number, gradient in enumerate(gradients):
                own_rate = rate * (0.01 if number < num_backbone else 0.2)
                velocities[number] = 0.9 * velocities[number] + gradient
                parameters[number] -= own_rate * velocities[number]
    return backbone, head


def test_equal_to_the_protocol_written_out(
    subject: Subject, knn_config: KNNConfig, tmp_path: Path
) -> None:
    """Backbone at its rate, head at its own, both divided by five at the milestone."""
    config = _config(knn_config, subset=None)
    images = open_images(config.data, "train")
    order = EvenOrder(len(images), config.tuning, config.seed)
    backbone, head = _literal_tuning(subject, config, order)
    classifier = Classifier(subject.backbone, 10, config.seed).double()
    file = StateFile(tmp_path / "state.pt", "x")
    tuning = Tuning(classifier, config, order, file, ClassTask(images).loss)
    steps = training_steps(subject, images, order, 0, config)
    tuning.run((views.double(), labels, size) for views, labels, size in steps)
    for found, expected in ((classifier.backbone, backbone), (classifier.head, head)):
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], tensor, rtol=1e-6, atol=1e-9)
    start = subject.backbone.get_parameter("conv1.weight")
    moved = classifier.backbone.get_parameter("conv1.weight") - start
    assert moved.abs().max() > 1e-5


def test_equal_to_byols_protocol_written_out(
    subject: Subject, knn_config: KNNConfig, tmp_path: Path
) -> None:
    """One rate along half a cosine, Nesterov's step, decay of all parameters; five of six steps."""
    tree = {"steps": 5, "batch_size": 8, "backbone_base_lr": 2.0, "head_base_lr": 2.0}
    tree["weight_decay"] = 0.1
    grid: dict[str, Any] = {"base_lr": [], "decays": []}
    config = _config(knn_config, protocol="byol", subset=None, tuning=tree, grid=grid)
    images = open_images(config.data, "train")
    order = EvenOrder(len(images), config.tuning, config.seed)
    network = Classifier(subject.backbone, 10, config.seed).double().train()
    parameters = list(network.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    losses = []
    for step, (views, labels, _) in enumerate(training_steps(subject, images, order, 0, config)):
        loss = functional.cross_entropy(network(views.double()), labels)
        losses.append(loss.item())
        rate = 2.0 * 8 / 256 * (1 + math.cos(math.pi * step / 5)) / 2
        with torch.no_grad():
            gradients = torch.autograd.grad(loss, parameters)
            for number, gradient in enumerate(gradients):
                decayed = gradient + 0.1 * parameters[number]
                velocities[number] = 0.9 * velocities[number] + decayed
                parameters[number] -= rate * (decayed + 0.9 * velocities[number])
    classifier = Classifier(subject.backbone, 10, config.seed).double()
    file = StateFile(tmp_path / "state.pt", "x")
    tuning = Tuning(classifier, config, order, file, ClassTask(images).loss)
    steps = training_steps(subject, images, order, 0, config)
    tuning.run((views.double(), labels, size) for views, labels, size in steps)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(classifier.state_dict()[name], tensor, rtol=1e-6, atol=1e-9)
    assert tuning.losses == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 2])


def test_the_subject_stays_as_it_is(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Later evaluators get the backbone that was loaded: same bytes, modes and gradients."""
    before = copy.deepcopy(subject.backbone.state_dict())
    _evaluate(subject, knn_config, workspace)
    assert not any(module.training for module in subject.backbone.modules())
    assert all(parameter.grad is None for parameter in subject.backbone.parameters())
    for name, tensor in subject.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_whole_evaluation(subject: Subject, knn_config: KNNConfig, workspace: Workspace) -> None:
    """The record tells the labels, the loss by epoch and every departure."""
    result = _evaluate(subject, knn_config, workspace)
    assert result.num_samples == 30
    assert result.headline == "top1"
    labelled = result.details["labelled"]
    assert (labelled["count"], labelled["smallest_class"], labelled["largest_class"]) == (20, 2, 2)
    assert len(result.details["loss_by_epoch"]) == 2
    assert result.deviations == [
        "24 training images (protocol: all)",
        "30 test images (protocol: all)",
        "epochs 2 (protocol: 20)",
        "milestones 1 (protocol: 12 and 16)",
        "batch_size 8 (protocol: 256)",
        "labels 2per_class (protocol: 10pct)",
    ]


def test_training_learns_its_labels(
    wide_subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Of the same view of 24 images each epoch, six epochs leave a fraction of the loss."""
    same = {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip_probability": 0.0}
    rates = {"backbone_base_lr": 0.2, "head_base_lr": 0.2}
    tuning = same | rates | {"epochs": 6, "milestones": [], "batch_size": 12}
    result = _evaluate(wide_subject, knn_config, workspace, subset=None, tuning=tuning)
    losses = result.details["loss_by_epoch"]
    assert losses[-1] < 0.5 * losses[0]
    assert "all labels (protocol: 10pct)" in result.deviations


def test_going_on_equals_never_stopping(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped at the end of an epoch it ends with the same losses and metrics."""
    whole = _evaluate(subject, knn_config, workspace)
    workspace.remove_states()
    with monkeypatch.context() as patch:
        _raise_at_step(patch, 3, signal.SIGTERM)
        with pytest.raises(Stopped, match="stopped by SIGTERM after step 3 of 6, saved"):
            _evaluate(subject, knn_config, workspace)
    assert workspace.state.exists()
    resumed = _evaluate(subject, knn_config, workspace)
    assert resumed.details == whole.details
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_going_on_restores_every_tensor(
    subject: Subject,
    knn_config: KNNConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dropout: float,
) -> None:
    """Weights, BatchNorm's statistics and velocities end bitwise where an undisturbed run's do.

    So they do in a network with dropout.
    """
    subject.backbone.fc = nn.Dropout(dropout)
    config = _config(knn_config, subset=None)
    images = open_images(config.data, "train")

    def tune(path: Path) -> Tuning:
        order = EvenOrder(len(images), config.tuning, config.seed)
        classifier = Classifier(subject.backbone, 10, config.seed)
        tuning = Tuning(classifier, config, order, StateFile(path, "x"), ClassTask(images).loss)
        tuning.run(training_steps(subject, images, order, tuning.step, config))
        return tuning

    whole = tune(tmp_path / "whole.pt")
    with monkeypatch.context() as patch:
        _raise_at_step(patch, 4, signal.SIGINT)
        with pytest.raises(Stopped, match="after step 4 of 6"):
            tune(tmp_path / "state.pt")
    resumed = tune(tmp_path / "state.pt")
    for name, tensor in whole.classifier.state_dict().items():
        assert torch.equal(resumed.classifier.state_dict()[name], tensor), name
    for first, second in zip(
        whole.optimizer.state.values(), resumed.optimizer.state.values(), strict=True
    ):
        assert torch.equal(first["momentum_buffer"], second["momentum_buffer"])


def test_the_seed_decides(subject: Subject, knn_config: KNNConfig, workspace: Workspace) -> None:
    """The same seed repeats the losses; another draws another head and order."""
    first, again, other = (
        _evaluate(subject, knn_config, workspace, seed=seed).details["loss_by_epoch"]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_protocols_decide_the_defaults(knn_config: KNNConfig) -> None:
    """One per cent of the labels goes with its own rates, unless the config changes them."""
    tree = {"data": to_tree(knn_config.data), "protocol": "swav_1pct"}
    config = parse_tree(FinetuneConfig, tree, "test")
    assert (config.tuning.backbone_base_lr, config.tuning.head_base_lr) == (0.02, 5.0)
    assert config.subset is not None
    assert config.subset.percent == 1
    changed = parse_tree(FinetuneConfig, tree | {"tuning": {"head_base_lr": 1}}, "test")
    assert (changed.tuning.backbone_base_lr, changed.tuning.head_base_lr) == (0.02, 1.0)
    everything = parse_tree(FinetuneConfig, tree | {"subset": None}, "test")
    assert everything.subset is None


def test_byol_by_the_numbers(knn_config: KNNConfig) -> None:
    """Seven rates and seven decays, half a decade apart, and no decay; epochs replace steps."""
    tree = {"data": to_tree(knn_config.data), "protocol": "byol"}
    config = parse_tree(FinetuneConfig, tree, "test")
    rates = [1e-4, 3.1623e-4, 1e-3, 3.1623e-3, 1e-2, 3.1623e-2, 0.1]
    decays = [0, 1e-6, 3.1623e-6, 1e-5, 3.1623e-5, 1e-4, 3.1623e-4, 1e-3]
    assert config.grid.base_lr == pytest.approx(rates, rel=1e-4)
    assert config.grid.decays == pytest.approx(decays, rel=1e-4)
    assert (config.tuning.steps, config.tuning.epochs, config.subset) == (20_000, None, None)
    assert (config.tuning.batch_size, config.tuning.sgd_momentum) == (256, 0.9)
    changed = parse_tree(FinetuneConfig, tree | {"tuning": {"epochs": 3}}, "test")
    assert (changed.tuning.steps, changed.tuning.epochs) == (None, 3)
    again = parse_tree(FinetuneConfig, to_tree(changed), "test")
    assert again == changed
    assert parse_tree(FinetuneConfig, {"data": tree["data"]}, "test").grid.base_lr == ()


def test_byols_departures(knn_config: KNNConfig) -> None:
    """Small digits depart in the images; a short run of a small grid in steps and rates.

    A search departs by its draw of validation images where none are published.
    """
    assert finetune_deviations(_config(knn_config, protocol="byol", subset=None, tuning={})) == [
        "24 training images (protocol: all)",
        "30 test images (protocol: all)",
        "bilinear resizing (protocol: bicubic)",
        "20 % of each class drawn for validation (protocol: its authors' own draw)",
        "short side not set, centre crop 16 (protocol: 256 and 224)",
    ]
    data = {"name": "dtd", "root": "x", "image_size": 224, "eval_resize": 256}
    data |= {"eval_interpolation": "bicubic"}
    tree = {"data": data, "protocol": "byol"}
    assert finetune_deviations(parse_tree(FinetuneConfig, tree, "test")) == []
    cifar = tree | {"data": data | {"name": "cifar10"}, "grid": {"held_out_percent": 10}}
    assert finetune_deviations(parse_tree(FinetuneConfig, cifar, "test")) == [
        "10 % of each class drawn for validation (protocol: its authors' own draw)"
    ]
    short = {"tuning": {"steps": 9}, "grid": {"base_lr": [0.1], "decays": [0]}}
    found = finetune_deviations(
        parse_tree(FinetuneConfig, tree | short | {"subset": {"percent": 10}}, "test")
    )
    assert found[0] == "steps 9 (protocol: 20000)"
    assert found[1].startswith("base_lr 0.1 (protocol: 0.0001 and 0.000316228 and 0.001 and")
    assert found[2].startswith("decays 0 (protocol: 0 and 1e-06")
    assert found[3:] == ["labels 10pct (protocol: all)"]


def test_older_records_keep_their_settings(knn_config: KNNConfig) -> None:
    """A record from before there were steps, schedules and grids is one of the same settings."""
    tree = to_tree(_config(knn_config))
    older = copy.deepcopy(tree)
    del older["grid"]
    for key in ("steps", "nesterov", "schedule", "bn_momentum"):
        del older["tuning"][key]
    assert result_settings(older) == result_settings(tree)
    byol = to_tree(_config(knn_config, protocol="byol", tuning={}))
    assert result_settings(byol) != result_settings(tree)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": {"steps": 5, "epochs": 30}}, "either epochs or steps, found 30 and 5"),
        ({"tuning": {"steps": 5}}, r"milestones \[12, 16\] are epochs, and epochs is null"),
        ({"tuning": {"schedule": "cosine"}}, "schedule cosine has no milestones"),
        ({"tuning": {"nesterov": True, "sgd_momentum": 0}}, "needs sgd_momentum above 0"),
        ({"grid": {"base_lr": [0.1]}}, "both base_lr and decays, or neither, found 1 and 0"),
        ({"grid": {"base_lr": [0.1, 0.1], "decays": [0]}}, "base_lr must increase"),
        (
            {"protocol": "byol", "tuning": {"weight_decay": 0.1}},
            r"grid decides tuning\.weight_decay, found 0\.1; leave it out",
        ),
        ({"tuning": {"epochs": 10}}, "must be below epochs 10"),
        ({"tuning": {"milestones": [16, 12]}}, "milestones must increase"),
        ({"layers": ["layer3"]}, "leave out layers and feature_dtype"),
        ({"feature_dtype": "fp16"}, "leave out layers and feature_dtype"),
        ({"protocol": "swav"}, "protocol"),
        ({"subset": {"percent": 1, "per_class": 1}}, "exactly one of percent"),
    ],
)
def test_invalid_settings(knn_config: KNNConfig, changes: dict[str, Any], message: str) -> None:
    """A contradiction is found when the config is loaded."""
    with pytest.raises(UserError, match=message):
        _config(knn_config, **changes)


def test_a_diverging_loss_stops_with_advice(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """A loss that is not finite names the epoch and the settings to change."""
    tuning = SHORT | {"backbone_base_lr": 1e30}
    with pytest.raises(UserError, match=r"is (nan|inf) in epoch .* lower tuning\.backbone_base_lr"):
        _evaluate(subject, knn_config, workspace, tuning=tuning)


def test_the_command_stops_and_goes_on(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """143 after SIGTERM and no record; the same command then ends well."""
    out = tmp_path / "finetune.json"
    words = ["finetune", str(run_folder), "--out", str(out), "device=cpu", "subset={per_class: 2}"]
    words += ["tuning.epochs=2", "tuning.milestones=[]", "tuning.batch_size=10"]
    with monkeypatch.context() as patch:
        _raise_at_step(patch, 2, signal.SIGTERM)
        assert main(words) == 143
    assert not out.exists()
    assert main(words) == 0
    assert len(read_record(out).details["loss_by_epoch"]) == 2
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"finetune.json", "finetune.predictions.npz"}
