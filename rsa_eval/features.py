"""Features of a frozen backbone: every image exactly once, in order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from rsa_eval.config import EvaluationConfig
from rsa_eval.subject import Subject
from rsa_pretrain.augment import to_normalised_tensor
from rsa_pretrain.backbone import feature_dim, pooled_stages
from rsa_pretrain.data_config import RGB, DataConfig
from rsa_pretrain.device import autocast
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.loader import iterate, make_loader
from rsa_pretrain.progress import progress_bar

FEATURE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class LabelledFeatures:
    """Features, float32 (N, D), with their class indices, int64 (N,)."""

    features: Tensor
    labels: Tensor


class TransformedImages(Dataset[Tensor]):
    """Images under a transform without chance.

    Args:
        images: Source.
        transform: RGB image to tensor (3, S, S).
    """

    def __init__(self, images: ImageSet, transform: v2.Transform) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        view: Tensor = self.transform(self.images[index])
        return view


def evaluation_transform(config: DataConfig, mean: RGB, std: RGB) -> v2.Transform:
    """Build the transform of evaluated images, from an RGB image to float32 (3, S, S).

    With ``eval_resize`` the short side is resized to it and the centre cropped, as ImageNet is
    evaluated; without, the whole image is resized to the square, whatever its shape. Bilinear.
    """
    side = config.image_size
    if config.eval_resize is None:
        geometry = [v2.Resize((side, side))]
    else:
        geometry = [v2.Resize(config.eval_resize), v2.CenterCrop(side)]
    to_square: v2.Transform = v2.Compose([*geometry, to_normalised_tensor(mean, std)])
    return to_square


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[None]:
    """Hold a backbone in eval mode without gradients, and prove afterwards that it did not move.

    In train mode BatchNorm would normalise by, and learn, the statistics of the evaluated
    images. Modes and ``requires_grad`` are given back at the end.

    Args:
        backbone: The network.

    Raises:
        RuntimeError: If a parameter or buffer differs in a single bit from before.
    """
    before = {name: tensor.detach().clone() for name, tensor in backbone.state_dict().items()}
    modes = {module: module.training for module in backbone.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in backbone.parameters()}
    backbone.eval().requires_grad_(False)
    try:
        yield
        after = backbone.state_dict()
        moved = [name for name in before if not _same_bits(before[name], after[name])]
        if moved:
            raise RuntimeError(f"the frozen backbone moved: {', '.join(moved[:5])}")
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in gradients.items():
            parameter.requires_grad_(requires_grad)


def extract_features(
    backbone: nn.Module,
    images: ImageSet,
    transform: v2.Transform,
    config: EvaluationConfig,
    label: str,
) -> LabelledFeatures:
    """Run all images through a frozen backbone, in order, the last partial batch included.

    Args:
        backbone: In eval mode, on its device.
        images: Labelled images.
        transform: Evaluation transform.
        config: Batch size, precision and loader processes.
        label: Title of the progress bar.

    Returns:
        Features and labels, on the CPU.

    Raises:
        ValueError: If the backbone is in train mode.
        UserError: If the images are unlabelled or a feature is not finite.
    """
    labels = torch.tensor(images.require_labels())
    loader = make_loader(
        TransformedImages(images, transform),
        [
            list(range(start, min(start + config.batch_size, len(images))))
            for start in range(0, len(images), config.batch_size)
        ],
        config.data.num_workers,
        device_of(backbone),
    )
    features = torch.empty(len(images), feature_width(backbone, config))
    done = 0
    with progress_bar(len(images), label, "img") as bar:
        for batch in iterate(loader):
            features[done : done + len(batch)] = forward_frozen(backbone, batch, config)
            done += len(batch)
            bar.update(len(batch))
    assert done == len(images)
    num_broken = int((~features.isfinite().all(dim=1)).sum())
    if num_broken:
        raise UserError(
            f"{num_broken} of {len(images)} {images.name} images have features that are not "
            f"finite at precision {config.precision}; the weights are not usable like this"
        )
    return LabelledFeatures(features, labels)


def evaluation_features(
    subject: Subject, images: ImageSet, config: EvaluationConfig, label: str
) -> LabelledFeatures:
    """Return the features of all images under the evaluation transform.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Labelled images.
        config: The evaluation.
        label: Title of the progress bar.

    Raises:
        UserError: As ``extract_features``.
    """
    transform = evaluation_transform(config.data, subject.mean, subject.std)
    return extract_features(subject.backbone, images, transform, config, label)


def feature_width(backbone: nn.Module, config: EvaluationConfig) -> int:
    """Return the width D of the features that an evaluation takes from a backbone."""
    return sum(feature_dim(backbone, layer) for layer in config.layers)


def forward_frozen(backbone: nn.Module, images: Tensor, config: EvaluationConfig) -> Tensor:
    """Return the features of a batch of normalised images, float32 (N, D).

    They come from ``config.layers`` and are rounded to ``config.feature_dtype``.

    Raises:
        ValueError: If the backbone is in train mode.
    """
    if any(module.training for module in backbone.modules()):
        raise ValueError("features come from a backbone in eval mode; hold it in frozen()")
    device = device_of(backbone)
    # ResNets run faster in this memory order, on CPUs too; the values' order stays (N, C, H, W).
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    with torch.no_grad(), autocast(config.precision, device):
        features = pooled_stages(backbone, images, config.layers)
    return features.to(FEATURE_DTYPES[config.feature_dtype]).float()


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters."""
    return next(module.parameters()).device


def _same_bits(first: Tensor, second: Tensor) -> bool:
    # Comparing bytes tells -0.0 from 0.0 and finds a NaN equal to itself.
    return torch.equal(
        first.reshape(-1).contiguous().view(torch.uint8),
        second.detach().reshape(-1).contiguous().view(torch.uint8),
    )
