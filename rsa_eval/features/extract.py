"""Extract features of a frozen backbone: every image exactly once, in order."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.cache import (
    CACHE_FORMAT_VERSION,
    CacheEntry,
    FeatureIdentity,
    tensors_sha256,
)
from rsa_eval.features.share import ALONE, Share, own_share
from rsa_eval.features.subject import Subject
from rsa_pretrain.components.backbone import feature_dim, pooled_stages
from rsa_pretrain.components.settings import Stage
from rsa_pretrain.data.image_set import UNLABELLED, ImageSet
from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.data.settings import RGB, DataConfig, Interpolation
from rsa_pretrain.plumbing.device import autocast, without_tf32
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.plumbing.distributed import gather, is_main, min_over_ranks
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.views.one_image import to_normalised_tensor
from rsa_pretrain.weights.metadata import library_versions

FEATURE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class LabelledFeatures:
    """Features, (N, D), with their class indices, int64 (N,); both on the CPU.

    Features are float32 unless a function says otherwise. The index of an image without a class
    is ``UNLABELLED``.
    """

    features: Tensor
    labels: Tensor

    @classmethod
    def of(cls, features: ArrayLike, labels: ArrayLike | None = None) -> Self:
        """Check features and labels of any origin.

        Args:
            features: Numbers, (N, D): a tensor, a NumPy array or nested lists.
            labels: Class indices from 0 on, whole numbers (N,), ``UNLABELLED`` for an image without
                class; None if no image has one.

        Returns:
            Features as float32, labels as int64.

        Raises:
            UserError: If a shape is another, there is no image, a feature is not finite, or a label
                is not a class index.
        """
        found = torch.as_tensor(features).detach().cpu().float()
        if found.ndim != 2 or 0 in found.shape:
            raise UserError(f"expected features (N, D), found shape {tuple(found.shape)}")
        num_broken = int((~found.isfinite().all(dim=1)).sum())
        if num_broken:
            raise UserError(
                f"{num_broken} of {len(found)} images have features that are not finite; extract "
                "them at precision fp32"
            )
        if labels is None:
            return cls(found, torch.full((len(found),), UNLABELLED))
        classes = torch.as_tensor(labels).detach().cpu()
        if classes.shape != (len(found),):
            raise UserError(
                f"expected a label for each of {len(found)} images, found shape "
                f"{tuple(classes.shape)}"
            )
        if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
            raise UserError(f"expected class indices, found labels of type {classes.dtype}")
        if (classes < UNLABELLED).any():
            raise UserError(f"class indices start at 0, found {int(classes.min())}")
        return cls(found, classes.long())


class ForwardSettings(Protocol):
    """The settings that decide a backbone's features; ``EvaluationConfig`` has them."""

    @property
    def layers(self) -> tuple[Stage, ...]:
        """Stages whose averaged outputs are concatenated."""

    @property
    def precision(self) -> Precision:
        """Autocast type of the forward pass."""

    @property
    def feature_dtype(self) -> Literal["fp32", "fp16"]:
        """Type that the features are rounded to."""


class TransformedImages(Dataset[Tensor]):
    """Images under a deterministic transform.

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
    """Build the evaluation transform, from an RGB image to float32 (3, S, S).

    With ``eval_resize`` the short side is resized to it and the centre cropped, as is usual for
    ImageNet; without, the whole image is resized to a square, whatever its aspect ratio.
    """
    size, resize = config.image_size, config.eval_resize
    return square_transform(size, resize, config.eval_interpolation, mean, std)


def square_transform(
    size: int, resize: int | None, interpolation: Interpolation, mean: RGB, std: RGB
) -> v2.Transform:
    """Build the transform from an RGB image to a normalised float32 tensor (3, size, size).

    Args:
        size: Side of the square.
        resize: Resize the short side to this and crop the centre; None resizes the whole image to
            the square.
        interpolation: Interpolation of the resizing.
        mean: Per channel, for pixels in [0, 1].
        std: Per channel.
    """
    mode = InterpolationMode(interpolation)
    if resize is None:
        geometry = [v2.Resize((size, size), mode)]
    else:
        geometry = [v2.Resize(resize, mode), v2.CenterCrop(size)]
    to_square: v2.Transform = v2.Compose([*geometry, to_normalised_tensor(mean, std)])
    return to_square


def feature_batches(
    backbone: nn.Module,
    images: ImageSet,
    transform: v2.Transform,
    config: EvaluationConfig,
    label: str,
    share: Share,
) -> Iterator[tuple[int, Tensor]]:
    """Run a process's share of the images through a frozen backbone, batch by batch.

    The batches are those a single process would make, so features are bitwise the same.

    Args:
        backbone: In eval mode, on its device.
        images: Images; each is read by one process, once.
        transform: Evaluation transform.
        config: Batch size, precision, layers and loader processes.
        label: Title of the progress bar.
        share: This process's part.

    Yields:
        The batch's first row among all images, and its features, (n, D), on the CPU.

    Raises:
        ValueError: If the backbone is in train mode.
        UserError: At the end, if a feature is not finite.
    """
    batches = share.batches(len(images), config.batch_size)
    loader = make_loader(
        TransformedImages(images, transform),
        [list(batch) for batch in batches],
        config.data.num_workers,
        device_of(backbone),
    )
    num_images = sum(map(len, batches))
    found = forward_batches(backbone, iterate(loader), num_images, config, label, images.name)
    for rows, features in zip(batches, found, strict=True):
        yield rows.start, features


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
        The features of each batch, float32 (n, D), on the CPU.

    Raises:
        ValueError: If the backbone is in train mode.
        UserError: At the end, if a feature is not finite.
    """
    num_broken = 0
    with progress_bar(num_images, label, "img") as bar:
        for batch in batches:
            features = forward_frozen(backbone, batch, config).cpu()
            num_broken += int((~features.isfinite().all(dim=1)).sum())
            yield features
            bar.update(len(features))
    if num_broken:
        raise UserError(
            f"{num_broken} of {num_images} {name} images have features that are not finite at "
            f"precision {config.precision}, kept in {config.feature_dtype}; set precision and "
            "feature_dtype to fp32; if they are, the weights are damaged"
        )


@contextmanager
def failing_together() -> Iterator[None]:
    """Fail in all processes if one raises a user error in the block, instead of deadlocking.

    Raises:
        UserError: The original error in the process that failed; a notice in the others.
    """
    failure = None
    try:
        yield
    except UserError as error:
        failure = error
    if not min_over_ranks(int(failure is None)):
        raise failure or UserError("another process could not extract its features; see its error")


def extract_features(
    backbone: nn.Module,
    images: ImageSet,
    transform: v2.Transform,
    config: EvaluationConfig,
    label: str,
    share: Share = ALONE,
) -> LabelledFeatures:
    """Return the features of all images, in memory as ``config.feature_dtype``.

    Args:
        backbone: In eval mode, on its device.
        images: Images.
        transform: Evaluation transform.
        config: Batch size, precision, layers and loader processes.
        label: Title of the progress bar.
        share: This process's part of the work; every process receives the whole result.

    Raises:
        ValueError: If the backbone is in train mode.
        UserError: If a feature is not finite.
    """
    labels = images.labels_of(range(len(images)))
    size, width = config.batch_size, feature_width(backbone, config)
    most_batches = len(Share(0, share.count).batches(len(images), size))
    own = torch.zeros(most_batches, size, width, dtype=FEATURE_DTYPES[config.feature_dtype])
    found = feature_batches(backbone, images, transform, config, label, share)
    with failing_together() if share.count > 1 else nullcontext():
        for place, (_, features) in enumerate(found):
            own[place, : len(features)] = features
    if share.count > 1:
        every = gather(own.to(device_of(backbone))).cpu()
        own = every.view(share.count, most_batches, size, width).transpose(0, 1)
    return LabelledFeatures(own.reshape(-1, width)[: len(images)], labels)


def stored_features(
    subject: Subject, images: ImageSet, config: EvaluationConfig, label: str
) -> LabelledFeatures:
    """Return the features of all images, of type ``config.feature_dtype``.

    With ``config.cache_dir`` they are mapped from a file there, and extracted only if there is no
    complete one for the same weights, images and settings. The processes of a group share the
    extraction.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Images.
        config: The evaluation.
        label: Title of the progress bar.

    Raises:
        UserError: As ``extract_features``.
    """
    if config.cache_dir is None:
        transform = evaluation_transform(config.data, subject.mean, subject.std)
        return extract_features(subject.backbone, images, transform, config, label, own_share())
    entry = ensure_cached(subject, images, config, config.cache_dir, label)
    return LabelledFeatures(entry.map(), entry.labels)


def ensure_cached(
    subject: Subject, images: ImageSet, config: EvaluationConfig, folder: Path, label: str
) -> CacheEntry:
    """Extract features into a cache unless it has them already; processes share the work.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Images.
        config: The evaluation.
        folder: The cache.
        label: Title of the progress bar.

    Returns:
        Their cache entry.

    Raises:
        UserError: As ``extract_features``.
    """
    entry = cache_entry(subject, images, config, folder)
    if not min_over_ranks(int(entry.is_usable() if is_main() else True)):
        transform = evaluation_transform(config.data, subject.mean, subject.std)
        found = feature_batches(subject.backbone, images, transform, config, label, own_share())
        with entry.writing() as file, failing_together():
            for row, features in found:
                file.write(row, features)
    return entry


def cache_entry(
    subject: Subject, images: ImageSet, config: EvaluationConfig, folder: Path
) -> CacheEntry:
    """Return the cache entry of a backbone's features of some images.

    Args:
        subject: Backbone and its pixel statistics.
        images: Images.
        config: The evaluation.
        folder: The cache.
    """
    versions = library_versions()
    identity = FeatureIdentity(
        format_version=CACHE_FORMAT_VERSION,
        weights=tensors_sha256(subject.backbone.state_dict()),
        images=images.fingerprint(),
        transform=repr(evaluation_transform(config.data, subject.mean, subject.std)),
        layers=config.layers,
        precision=config.precision,
        feature_dtype=config.feature_dtype,
        library_versions={name: versions[name] for name in ("torch", "torchvision", "pillow")},
    )
    return CacheEntry(
        folder=folder,
        name=images.name,
        identity=identity,
        labels=images.labels_of(range(len(images))),
        width=feature_width(subject.backbone, config),
        dtype=FEATURE_DTYPES[config.feature_dtype],
    )


def evaluation_features(
    subject: Subject, images: ImageSet, config: EvaluationConfig, label: str
) -> LabelledFeatures:
    """Return the features of all images under the evaluation transform, float32.

    They may be mapped from a file. Features stored in fp16 are converted in memory.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Images.
        config: The evaluation.
        label: Title of the progress bar.

    Raises:
        UserError: As ``extract_features``.
    """
    stored = stored_features(subject, images, config, label)
    return LabelledFeatures(stored.features.float(), stored.labels)


def feature_width(backbone: nn.Module, config: ForwardSettings) -> int:
    """Return the width D of the features an evaluation takes from a backbone."""
    return sum(feature_dim(backbone, layer) for layer in config.layers)


def forward_frozen(backbone: nn.Module, images: Tensor, config: ForwardSettings) -> Tensor:
    """Return the features of a batch of normalised images, float32 (N, D).

    They come from ``config.layers`` and are rounded to ``config.feature_dtype``.

    Raises:
        ValueError: If the backbone is in train mode.
    """
    if any(module.training for module in backbone.modules()):
        raise ValueError("features need a backbone in eval mode; wrap the call in frozen()")
    device = device_of(backbone)
    # ResNets run faster in this memory format, on CPUs too; the shape stays (N, C, H, W).
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    precision = config.precision
    with torch.no_grad(), autocast(precision, device), without_tf32(precision):
        features = pooled_stages(backbone, images, config.layers)
    return features.to(FEATURE_DTYPES[config.feature_dtype]).float()


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters."""
    return next(module.parameters()).device
