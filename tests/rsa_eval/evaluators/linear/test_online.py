from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_reads import WithoutHostReads
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from rsa_eval.__main__ import main
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.batches import ReadOrder
from rsa_eval.evaluators.linear.heads import HeadTrainer, new_heads
from rsa_eval.evaluators.linear.online import ResidentViews, online_batches, steps_per_forward
from rsa_eval.evaluators.linear.probe import train_probe
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.features.forward import feature_width
from rsa_eval.features.scaling import unscaled
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.views.draws import draw_views
from rsa_pretrain.views.settings import ViewsConfig

CPU = torch.device("cpu")
# 60 images: seven steps an epoch, the last of six images.
ORDER = ReadOrder(num_images=60, batch_size=9, epochs=2, seed=0)
# A batch whose size is no multiple of eight may be summed in another order: 3e-7 of the largest.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}

Batch = tuple[Tensor, Tensor]
WAYS = pytest.mark.parametrize("views", ["pillow", "batched"])


def _config(knn_config: KNNConfig, views: str = "batched", **settings: Any) -> LinearConfig:
    probe = {"views": views, "epochs": 2, "milestones": [], "batch_size": 9, "base_lr": 1.0}
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "probe": probe, **settings}
    return parse_tree(LinearConfig, tree, "test")


def _batches(
    subject: Subject, config: LinearConfig, num_steps: int, first_step: int = 0
) -> Generator[Batch, None, None]:
    images = open_images(config.data, "train")
    return online_batches(subject, images, ORDER, unscaled, config, num_steps)(first_step)


def _on(subject: Subject, device: str) -> Subject:
    return replace(subject, backbone=subject.backbone.eval().to(device))


def _new_state(subject: Subject, config: LinearConfig) -> ProbeState:
    width = feature_width(subject.backbone, config)
    heads = new_heads(width, 10, config.probe, 0, subject.device)
    return ProbeState(HeadTrainer(heads, config.probe), "test", None)


def _train(subject: Subject, config: LinearConfig, num_steps: int) -> ProbeState:
    state = _new_state(subject, config)
    train_probe(state, lambda step: _batches(subject, config, num_steps, step), ORDER, 5)
    return state


def _assert_close(found: Iterator[Batch], expected: Iterator[Batch]) -> None:
    for (features, labels), (own_features, own_labels) in zip(found, expected, strict=True):
        torch.testing.assert_close(features, own_features, **ROUNDING)
        assert torch.equal(labels, own_labels)


def test_batched_views_equal_a_slow_rewrite(subject: Subject, knn_config: KNNConfig) -> None:
    """Each image by itself: drawn for its epoch, cropped and resized by torchvision, mirrored."""
    config = _config(knn_config)
    images = open_images(config.data, "train")
    views = ResidentViews(subject, images, config)
    blocks = list(ORDER.blocks(0, 3))
    mean, std = (torch.tensor(values)[:, None, None] for values in (subject.mean, subject.std))
    num_mirrored = 0
    for block, (found, labels) in zip(blocks, views.load(blocks), strict=True):
        assert labels.tolist() == [images.require_labels()[number] for number in block.images]
        for view, epoch, number in zip(found, block.epochs, block.images, strict=True):
            image = functional.to_dtype(functional.to_image(images[number]), scale=True)
            keys = [np.array([value]) for value in (epoch, number, *image.shape[1:])]
            weak = ViewsConfig(weak=config.probe.train_view)
            crop = draw_views(("v_w",), weak, config.seed, *keys).crops[""]
            box = [int(value) for value in (crop.top, crop.left, crop.height, crop.width)]
            expected = functional.resized_crop(image, *box, [32, 32], antialias=True)
            if crop.flip:
                num_mirrored += 1
                expected = expected.flip(-1)
            torch.testing.assert_close(view, (expected - mean) / std, rtol=0, atol=2e-5)
    assert 0 < num_mirrored < 120


@WAYS
@pytest.mark.parametrize("num_steps", [2, 8, 99])
def test_steps_of_one_forward_pass_equal_single_ones(
    subject: Subject, knn_config: KNNConfig, views: str, num_steps: int
) -> None:
    """Features and labels of each step, across epochs and partial last batches."""
    config = _config(knn_config, views)
    together, alone = list(_batches(subject, config, num_steps)), _batches(subject, config, 1)
    assert [len(labels) for _, labels in together] == [9, 9, 9, 9, 9, 9, 6] * 2
    _assert_close(iter(together), alone)


@WAYS
@pytest.mark.parametrize("num_steps", [1, 4])
def test_views_are_fresh_each_epoch_and_the_same_from_any_step_on(
    subject: Subject, knn_config: KNNConfig, views: str, num_steps: int
) -> None:
    """An image's features differ between epochs; started within a block, all come out again.

    They do so bitwise, but for the steps of the block in which the run was stopped.
    """
    config = _config(knn_config, views)
    whole = list(_batches(subject, config, num_steps))
    for first_step in range(1, ORDER.num_steps):
        again = list(_batches(subject, config, num_steps, first_step))
        _assert_close(iter(again), iter(whole[first_step:]))
        next_block = -(-first_step // num_steps) * num_steps
        for (features, _), (same, _) in zip(
            whole[next_block:], again[next_block - first_step :], strict=True
        ):
            assert torch.equal(features, same)
    rows = {
        (epoch, image): row
        for (epoch, share), (features, _) in zip(ORDER.shares(0), whole, strict=True)
        for image, row in zip(share.tolist(), features, strict=True)
    }
    assert not torch.equal(rows[0, 7], rows[1, 7])


@WAYS
@pytest.mark.parametrize("num_steps", [1, 3])
def test_processes_share_each_step(
    subject: Subject,
    knn_config: KNNConfig,
    monkeypatch: pytest.MonkeyPatch,
    views: str,
    num_steps: int,
) -> None:
    """Seven processes compute together what one computes; of six images one has none."""
    config = _config(knn_config, views)
    whole = list(_batches(subject, config, num_steps))
    monkeypatch.setattr("rsa_eval.evaluators.linear.batches.world_size", lambda: 7)
    parts = []
    for rank in range(7):
        monkeypatch.setattr("rsa_eval.evaluators.linear.batches.rank", lambda rank=rank: rank)
        parts.append(list(_batches(subject, config, num_steps)))
    assert len(parts[6][6][1]) == 0
    for step, (features, labels) in enumerate(whole):
        shares = [part[step] for part in parts]
        torch.testing.assert_close(torch.cat([rows for rows, _ in shares]), features, **ROUNDING)
        assert torch.equal(torch.cat([own for _, own in shares]), labels)


@WAYS
def test_a_probe_trained_in_blocks_is_the_same(
    subject: Subject, knn_config: KNNConfig, views: str
) -> None:
    """Weights and losses after two epochs, forward passes of four steps or of one."""
    config = _config(knn_config, views)
    together, alone = _train(subject, config, 4), _train(subject, config, 1)
    assert together.losses[1] == pytest.approx(alone.losses[1], rel=1e-4)
    assert alone.losses[1] != alone.losses[0]
    for found, expected in zip(together.tensors(), alone.tensors(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_gpu_takes_as_many_steps_as_an_extraction_images(
    subject: Subject, knn_config: KNNConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,048 small images or those of the setting, in whole steps of this process; at least one."""
    gpu = torch.device("cuda", 0)

    def steps(device: torch.device, images: int, at_once: int | None = None) -> int:
        config = _config(knn_config, batch_size=at_once)
        probe = config.probe.model_copy(update={"batch_size": images})
        changed = config.model_copy(update={"probe": probe})
        return steps_per_forward(device, subject.backbone, changed)

    assert [steps(gpu, images) for images in (256, 300, 4096)] == [8, 6, 1]
    assert steps(gpu, 256, at_once=1024) == 4
    assert steps(CPU, 9) == 1
    monkeypatch.setattr("rsa_eval.evaluators.linear.online.world_size", lambda: 4)
    assert steps(gpu, 256) == 32


def test_no_operation_of_batched_views_is_read(subject: Subject, knn_config: KNNConfig) -> None:
    """From drawing the views to the step, the host needs no result's value or shape."""
    config = _config(knn_config)
    state = _new_state(subject, config)
    with WithoutHostReads():
        train_probe(state, lambda step: _batches(subject, config, 4, step), ORDER, 5)
    assert state.step == ORDER.num_steps
    with WithoutHostReads(), pytest.raises(RuntimeError, match="_local_scalar_dense"):
        state.loss_sums.sum().item()


@WAYS
def test_the_first_value_read_is_an_epochs_loss(
    subject: Subject, knn_config: KNNConfig, views: str
) -> None:
    """On the device without values, every step of an epoch can be taken, but its loss not read.

    There a copy to the host fails, and so does an operation on tensors of two devices.
    """
    config = _config(knn_config, views)
    on_meta = _on(subject, "meta")
    state = _new_state(on_meta, config)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        train_probe(state, lambda step: _batches(on_meta, config, 4, step), ORDER, 5)
    assert state.step == ORDER.steps_per_epoch


def test_an_abandoned_training_closes_its_loader(
    subject: Subject, knn_config: KNNConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker processes end with the training, not when the garbage is collected."""
    closed = []

    def noting(loader: Any) -> Generator[Any, None, None]:
        try:
            yield from loader
        finally:
            closed.append(True)

    loaders: list[Any] = []  # the references keep the collector from closing them
    monkeypatch.setattr(
        "rsa_eval.evaluators.linear.online.iterate",
        lambda loader: loaders.append(noting(loader)) or loaders[-1],
    )
    steps = _batches(subject, _config(knn_config, "pillow"), 1)
    next(steps)
    steps.close()
    assert closed == [True]


def test_image_files_are_refused(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what batched views need, and what to set."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            path = tmp_path / split / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(path)
    words = ["linear", str(finished_run), "--out", str(tmp_path / "record.json"), "device=cpu"]
    words += ["data.name=imagefolder", f"data.root={tmp_path}", "probe.views=batched"]
    words += ["data.num_train_images=null", "data.num_test_images=null"]
    assert main(words) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == (
        "error: probe.views=batched needs a set of small images, which is kept in memory, such as "
        "cifar10 or tiny_imagenet; 'imagefolder' is read from files: set probe.views=pillow"
    )


@pytest.mark.gpu
@WAYS
def test_a_gpu_is_not_waited_for_within_an_epoch(
    subject: Subject, knn_config: KNNConfig, views: str
) -> None:
    """The first operation that makes the CPU wait is the reading of an epoch's loss."""
    config = _config(knn_config, views)
    on_gpu = _on(subject, "cuda")
    images = open_images(config.data, "train")
    batches = online_batches(on_gpu, images, ORDER, unscaled, config, 4)
    list(batches(ORDER.num_steps - 1))  # constants are sent once
    state = _new_state(on_gpu, config)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            train_probe(state, batches, ORDER, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == ORDER.steps_per_epoch


@pytest.mark.gpu
@WAYS
def test_gpu_and_cpu_train_the_same_probe(
    subject: Subject, knn_config: KNNConfig, views: str
) -> None:
    """Four steps a forward pass there and one here: losses agree to the convolutions' rounding."""
    config = _config(knn_config, views)
    on_cpu = _train(subject, config, 1)
    on_gpu = _train(_on(subject, "cuda"), config, 4)
    assert on_gpu.losses[1] == pytest.approx(on_cpu.losses[1], rel=1e-3)
