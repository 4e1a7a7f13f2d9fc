"""Compare a whole epoch of RSA from stored images with its bare forward and backward passes."""

from functools import partial

import torch
from torch import Tensor

from benchmarks.images import small_images
from benchmarks.measure import Benchmark, Finding, Measurement, peak_memory, rates, ratio
from benchmarks.training import (
    OUTPUT_DIM,
    RSA,
    TrainingSettings,
    alternate_epochs,
    timed_epoch,
    trainer_epoch,
)
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.methods.rsa import RSA as Method
from rsa_pretrain.methods.settings import RSAConfig
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.plumbing.device_names import Precision

_OURS, _BARE = "training epoch", "bare passes"


class EpochSettings(TrainingSettings):
    """RSA as the paper trains it on CIFAR-10, with the standard stem."""

    precision: Precision = "fp32"
    """Autocast type of the forward passes, in both candidates."""


def measure(settings: EpochSettings) -> Measurement:
    """Time epochs of the trainer and the bare passes of equally many batches."""
    images = small_images(settings.num_images, settings.seed)
    train = partial(trainer_epoch, settings, RSA, settings.precision)
    candidates = {_OURS: partial(train, images), _BARE: partial(bare_epoch, settings)}
    seconds = alternate_epochs(candidates, settings.repeats)
    steps = settings.num_images // settings.batch_size
    finding = Finding(
        what=f"epoch over two forward+backward and two forward passes, {images.name}",
        value=ratio(seconds, _OURS, _BARE),
        unit="×",
        bound="at most",
        limit=1.05,
    )
    few = images.random_subset(min(len(images), 2 * settings.batch_size), settings.seed)
    memory = peak_memory({_OURS: partial(train, few)}, settings.device)
    return Measurement([finding], seconds, rates(seconds, steps * settings.batch_size) + memory)


def bare_epoch(settings: EpochSettings) -> float:
    """Return the seconds of the bare passes of an epoch's batches."""
    device = torch.device(settings.device)
    generator = torch.Generator().manual_seed(settings.seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    side = (settings.batch_size, 3, 32, 32)
    views = [noise(*side).to(memory_format=torch.channels_last) for _ in range(4)]
    gradient = noise(settings.batch_size, OUTPUT_DIM)
    backbone = build_backbone(BackboneConfig(arch=settings.arch, stem=settings.stem))
    method = Method(backbone, RSAConfig(**RSA)).to(device).to(memory_format=torch.channels_last)

    def epoch() -> None:
        for _ in range(settings.num_images // settings.batch_size):
            bare_passes(method, views, gradient, settings.precision)

    return timed_epoch(epoch, settings.device)


def bare_passes(
    method: Method, views: list[Tensor], gradient: Tensor, precision: Precision
) -> None:
    """Pass two views forward and backward through the online network, and two through its target.

    Args:
        method: The networks.
        views: ``[v_a, v_a', v_w, v_w']``, (N, 3, H, W).
        gradient: Gradient of the predictions, (N, D); there is no loss.
        precision: Autocast type of the forward passes.
    """
    method.zero_grad()
    # One context, so that weights are cast once for both views, as in the trainer's step.
    with autocast(precision, gradient.device):
        predictions = [
            method.predictor(method.projector(method.backbone(view))) for view in views[:2]
        ]
        with torch.no_grad():
            for view in views[2:]:
                method.target_projector(method.target_backbone(view))
    torch.autograd.backward(predictions, [gradient.to(each.dtype) for each in predictions])


BENCHMARK = Benchmark(
    settings=EpochSettings,
    measure=measure,
    summary="A training epoch of RSA from stored images compared with its networks' bare passes.",
)
