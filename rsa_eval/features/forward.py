"""Run batches of images through a frozen backbone."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from rsa_eval.features.networks.interface import network_of
from rsa_pretrain.components.settings import Stage
from rsa_pretrain.plumbing.device import autocast, without_tf32
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar

FEATURE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class NonFiniteFeatures(UserError):
    """Features of some images are infinite or not a number."""


class ForwardSettings(Protocol):
    """The settings that decide a ResNet's features; ``EvaluationConfig`` has them."""

    @property
    def layers(self) -> tuple[Stage, ...]:
        """Stages whose averaged outputs are concatenated."""

    @property
    def precision(self) -> Precision:
        """Autocast type of the forward pass."""

    @property
    def feature_dtype(self) -> Literal["fp32", "fp16"]:
        """Type that the features are rounded to."""


def forward_batches(
    backbone: nn.Module,
    batches: Iterable[Tensor],
    num_images: int,
    config: ForwardSettings,
    label: str,
    name: str,
) -> Iterator[Tensor]:
    """Run batches of normalised images through a frozen backbone.

    Args:
        backbone: In eval mode, on its device.
        batches: Images, float32 (n, 3, S, S).
        num_images: Images in all batches.
        config: Layers, precision and type of the features.
        label: Title of the progress bar.
        name: Name of the data set, for errors.

    Yields:
        The features of each batch, float32 (n, D), on the backbone's device.

    Raises:
        ValueError: If the backbone is in train mode.
        NonFiniteFeatures: At the end, if a feature is not finite.
    """
    # Counted on the device: reading a number for each batch would make the CPU wait each time.
    num_broken = torch.zeros((), dtype=torch.int64, device=device_of(backbone))
    with progress_bar(num_images, label, "img") as bar:
        for batch in batches:
            features = forward_frozen(backbone, batch, config)
            num_broken += (~features.isfinite().all(dim=1)).sum()
            yield features
            bar.update(len(features))
    if count := int(num_broken):
        raise NonFiniteFeatures(
            f"{count} of {num_images} {name} images have features that are not finite at "
            f"precision {config.precision}, kept in {config.feature_dtype}; set precision and "
            "feature_dtype to fp32; if they are, the weights are damaged"
        )


def forward_frozen(backbone: nn.Module, images: Tensor, config: ForwardSettings) -> Tensor:
    """Return the features of a batch of normalised images, float32 (N, D).

    A ResNet's come from ``config.layers``; all are rounded to ``config.feature_dtype``.

    Raises:
        ValueError: If the backbone is in train mode.
    """
    network = network_of(backbone)
    features = _in_eval_mode(
        backbone, images, config.precision, lambda sent: network.features(sent, config)
    )
    return features.to(FEATURE_DTYPES[config.feature_dtype]).float()


def forward_frozen_map(backbone: nn.Module, images: Tensor, config: ForwardSettings) -> Tensor:
    """Return the last map of each of a batch of normalised images, float32 (N, D, h, w).

    It is rounded to ``config.feature_dtype``.

    Raises:
        ValueError: If the backbone is in train mode.
        UserError: If the network gives no map.
    """
    maps = _in_eval_mode(backbone, images, config.precision, network_of(backbone).last_map)
    return maps.to(FEATURE_DTYPES[config.feature_dtype]).float()


def _in_eval_mode(
    backbone: nn.Module, images: Tensor, precision: Precision, take: Callable[[Tensor], Tensor]
) -> Tensor:
    """Run a frozen backbone on its device at a precision."""
    if any(module.training for module in backbone.modules()):
        raise ValueError("features need a backbone in eval mode; wrap the call in frozen()")
    device = device_of(backbone)
    # ResNets run faster in this memory format, on CPUs too; the shape stays (N, C, H, W).
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    with torch.no_grad(), autocast(precision, device), without_tf32(precision):
        return take(images)


def placed(backbone: nn.Module, device: torch.device) -> nn.Module:
    """Move a backbone to a device, for evaluation.

    On a GPU its filters take the memory format of the images, or cuDNN would convert them for every
    batch. On a CPU they keep theirs: another would round some features differently.
    """
    gains = device.type == "cuda" and network_of(backbone).channels_last
    format_ = torch.channels_last if gains else torch.preserve_format
    return backbone.to(device).to(memory_format=format_)


def feature_width(backbone: nn.Module, config: ForwardSettings) -> int:
    """Return the width D of the features an evaluation takes from a backbone."""
    return network_of(backbone).width(config)


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters and buffers."""
    return next(chain(module.parameters(), module.buffers())).device
