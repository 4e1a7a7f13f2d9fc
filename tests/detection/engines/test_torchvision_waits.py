"""Test copies to a GPU, and the waits for one, of the torchvision engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.data._utils.pin_memory import pin_memory

from detection.engines.torchvision import detector as detector_module
from detection.engines.torchvision import trainer
from detection.engines.torchvision.anchors import AnchorLayout
from detection.engines.torchvision.detector import MaskRCNN, build_detector, place
from detection.engines.torchvision.mask_targets import mask_targets
from detection.engines.torchvision.run_state import DetectorState
from detection.feeding.samples import Bitmap, TestSample, TrainingSample, TrainingStream
from detection.job.job import Job, open_job
from detection.job.trunk import random_trunk
from detection.recipe.architecture import DEFAULT_ANCHORS
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_detector")

MakeRecipe = Callable[..., Recipe]
CUDA = torch.device("cuda", 0)


@pytest.fixture
def job(make_recipe: MakeRecipe) -> Job:
    """The small recipe on the CPU."""
    recipe = make_recipe()
    return open_job(recipe, random_trunk(recipe.model, recipe.seed))


@pytest.fixture
def detector(job: Job) -> MaskRCNN:
    """Its detector, on the CPU, in train mode."""
    torch.manual_seed(0)
    return build_detector(job.recipe, job.trunk, job.num_classes).train()


@pytest.fixture
def samples(job: Job) -> list[TrainingSample]:
    """Two training images with their objects."""
    stream = TrainingStream(job.train_images, job.recipe.input, 1)
    return [stream[0], stream[1]]


def _refuse_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a tensor was read on the host")

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, name, refuse)


def test_a_step_reads_no_loss(
    job: Job, samples: list[TrainingSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around the forward pass nothing is read; the losses come back as they are."""
    run = trainer._Trainer(job, tmp_path)
    network = run._network

    with monkeypatch.context() as patch:

        def forward(batch: list[TrainingSample]) -> Any:
            losses = network(batch)
            _refuse_reading(patch)
            return losses

        patch.setattr(run, "_network", forward)
        found = run._train_step(samples)
    rate = found.pop("lr")
    assert isinstance(rate, float)
    losses = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    assert losses.keys() == found.keys()
    assert not any(value.requires_grad for value in losses.values())
    total = losses.pop("loss")
    torch.testing.assert_close(total, torch.stack(list(losses.values())).sum())


def test_loaders_for_a_gpu_lock_the_images(
    samples: list[TrainingSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader's own function, applied to a batch, reaches every image and leaves the rest."""
    locked: list[Tensor] = []

    def lock(tensor: Tensor) -> Tensor:
        locked.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(Tensor, "pin_memory", lock)
    test_sample = TestSample(samples[0].image, image_id=3, height=4, width=5)
    first, second, third = pin_memory([*samples, test_sample])
    assert [id(image) for image in locked] == [
        id(sample.image) for sample in (*samples, test_sample)
    ]
    for found, sample in ((first, samples[0]), (second, samples[1])):
        assert torch.equal(found.image, sample.image)
        assert found.image is not sample.image
        assert found.boxes is sample.boxes
        assert found.labels is sample.labels
        assert found.outlines is sample.outlines
    assert (third.image_id, third.height, third.width) == (3, 4, 5)


def test_targets_are_sent_together(
    detector: MaskRCNN, samples: list[TrainingSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies for a batch, of all boxes and of all labels; an image without objects has none."""
    sent: list[Tensor] = []

    def send(tensor: Tensor, _device: torch.device) -> Tensor:
        sent.append(tensor)
        return tensor

    monkeypatch.setattr(detector_module, "to_device", send)
    empty = TrainingSample(
        samples[0].image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), outlines=()
    )
    batch = [samples[0], empty, samples[1]]
    for target, sample in zip(detector._targets(batch), batch, strict=True):
        np.testing.assert_array_equal(target["boxes"], sample.boxes)
        np.testing.assert_array_equal(target["labels"], sample.labels)
        assert target["outlines"] is sample.outlines
    total = len(samples[0].labels) + len(samples[1].labels)
    assert [tuple(tensor.shape) for tensor in sent] == [(total, 4), (total,)]


def test_only_a_gpu_takes_channels_last(
    detector: MaskRCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU the weights stay as they were built."""
    strides = {name: part.stride() for name, part in detector.named_parameters()}
    assert place(detector, torch.device("cpu")) is detector
    assert {name: part.stride() for name, part in detector.named_parameters()} == strides
    calls: list[Any] = []
    monkeypatch.setattr(MaskRCNN, "to", lambda _, *args, **options: calls.append((args, options)))
    place(detector, CUDA)
    assert calls == [((CUDA,), {}), ((), {"memory_format": torch.channels_last})]


def test_maps_on_a_gpu_follow_the_weights(detector: MaskRCNN) -> None:
    """From channels-first images, by shapes alone: the pyramid's maps are channels last."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {
            name: torch.empty(part.shape, dtype=part.dtype, device=CUDA).to(
                memory_format=torch.channels_last if part.ndim == 4 else torch.preserve_format
            )
            for name, part in detector.backbone.state_dict().items()
        }
        maps = functional_call(detector.backbone, state, (torch.empty(2, 3, 64, 96, device=CUDA),))
    assert [tuple(level.shape[2:]) for level in maps.values()][:2] == [(16, 24), (8, 12)]
    for level in list(maps.values())[:3]:  # the others have a side of 1 or 2
        assert level.is_contiguous(memory_format=torch.channels_last)
        assert level.device == CUDA


def test_anchors_are_laid_out_where_they_are_needed() -> None:
    """By shapes alone: on the GPU, from what is there; nothing is sent or read."""
    shapes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    with FakeTensorMode():
        with CUDA:
            layout = AnchorLayout(DEFAULT_ANCHORS, "FPN")
        levels = layout(shapes)
    assert [tuple(level.shape) for level in levels] == [(3 * h * w, 4) for h, w in shapes]
    assert all(level.device == CUDA for level in levels)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_poolers_read_the_same_maps(
    detector: MaskRCNN, samples: list[TrainingSample], precision: Any
) -> None:
    """Float32 and contiguous, converted once, also from channels last and bf16."""
    read: list[list[Tensor]] = []
    heads = detector.roi_heads
    for pool in (heads.box_pool, heads.mask_pool):
        pool.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    detector.backbone.to(memory_format=torch.channels_last)
    with autocast(precision, torch.device("cpu")):
        detector(samples)
    box, mask = read
    assert len(box) == len(mask) == 4
    for first, second in zip(box, mask, strict=True):
        assert first is second
        assert first.dtype == torch.float32
        assert first.is_contiguous()


def test_momentum_of_another_device_is_laid_out_alike(job: Job, tmp_path: Path) -> None:
    """A GPU saves channels last; on the CPU the fused kernel would pair wrong numbers."""
    state, other = DetectorState(job), DetectorState(job)
    for parameter in state.optimizer.state:
        momentum = torch.randn(parameter.shape)
        if parameter.ndim == 4:
            momentum = momentum.to(memory_format=torch.channels_last)
        state.optimizer.state[parameter]["momentum_buffer"] = momentum
    state.step = 1
    state.save(tmp_path)
    folder = tmp_path / "checkpoints" / "last"
    saved = load_checkpoint(folder)[2]["optimizer"]["state"]
    assert any(not entry["momentum_buffer"].is_contiguous() for entry in saved.values())
    other.resume(folder)
    for mine, theirs in zip(other.optimizer.state, state.optimizer.state, strict=True):
        found = other.optimizer.state[mine]["momentum_buffer"]
        assert found.stride() == mine.stride()
        assert torch.equal(found, state.optimizer.state[theirs]["momentum_buffer"])


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_the_cpu_s(
    detector: MaskRCNN, samples: list[TrainingSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and gradients of the same weights, images, objects and proposals.

    The devices draw other random numbers: samplers without a limit take every anchor and region.
    Gradients are sums in another order, over up to 3,000 positions, of convolutions by another
    library: a thousandth of a tensor's largest may differ.
    """
    for part in (detector.rpn, detector.roi_heads):
        part._sampler.batch_size_per_image = 10**6
    own = [torch.from_numpy(sample.boxes) for sample in samples]
    proposals = [torch.cat([boxes + 1, boxes + 3, boxes * 0.5]) for boxes in own]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    results = []
    for device in (torch.device("cpu"), CUDA):
        place(detector, device).zero_grad()
        sent = [boxes.to(device) for boxes in proposals]
        monkeypatch.setattr(detector.rpn, "_select", lambda *_, sent=sent: sent)
        losses = detector(pin_memory(samples) if device == CUDA else samples)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {
            name: part.grad.cpu()
            for name, part in detector.named_parameters()
            if part.grad is not None
        }
        results.append(({name: loss.detach().cpu() for name, loss in losses.items()}, gradients))
    (cpu_losses, cpu_gradients), (gpu_losses, gpu_gradients) = results
    for name, loss in cpu_losses.items():
        torch.testing.assert_close(gpu_losses[name], loss, rtol=1e-4, atol=1e-5)
    assert cpu_gradients.keys() == gpu_gradients.keys()
    for name, expected in cpu_gradients.items():
        limit = 1e-3 * float(expected.abs().max()) + 1e-7
        torch.testing.assert_close(gpu_gradients[name], expected, rtol=0, atol=limit)


@pytest.mark.gpu
def test_mask_targets_on_a_gpu_are_the_cpu_s() -> None:
    """Bitwise, of polygons and of a bitmap among them."""
    square = np.array([[8.0, 8.0], [40.0, 9.0], [38.0, 40.0], [7.0, 41.0]])
    random = np.random.default_rng(2)
    bitmap = Bitmap(random.integers(0, 2, (30, 20), dtype=np.uint8), left=5, top=9)
    outlines = [(square,), bitmap, (square, square + 20)] * 20
    corners = random.uniform(0, 20, (60, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 40, (60, 2))]).astype(np.float32)
    expected = mask_targets(outlines, torch.from_numpy(boxes), 28)
    assert torch.equal(mask_targets(outlines, torch.from_numpy(boxes).cuda(), 28).cpu(), expected)


@pytest.mark.gpu
def test_parts_that_do_not_wait_for_a_gpu(
    detector: MaskRCNN, samples: list[TrainingSample]
) -> None:
    """Sending a batch, the pyramid, the proposal network's head and the anchors: waits raise."""
    place(detector, CUDA)
    locked = pin_memory(samples)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images = detector.batched([sample.image for sample in locked])
        targets = detector._targets(locked)
        maps = list(detector.backbone(images.tensors).values())
        detector.rpn.head(maps)
        detector.rpn.anchors([(level.shape[2], level.shape[3]) for level in maps])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(target["boxes"].device == CUDA for target in targets)
    assert maps[0].is_contiguous(memory_format=torch.channels_last)
