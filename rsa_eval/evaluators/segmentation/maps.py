"""Compute the last maps of images, once or in every epoch."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rsa_eval.evaluators.linear.batches import ReadOrder
from rsa_eval.evaluators.segmentation.samples import (
    MaskedBatch,
    TestSamples,
    TrainingMasks,
    TrainingSamples,
    load_masked,
)
from rsa_eval.evaluators.segmentation.sets import MaskedSet
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.forward import FEATURE_DTYPES, NonFiniteFeatures, forward_frozen_map
from rsa_eval.features.identity import CACHE_FORMAT_VERSION, FeatureIdentity
from rsa_eval.features.networks.interface import network_of
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.plumbing.versions import installed_versions

# From a first step to one item per training step: this process's maps, float32 (n, D, h, w), and
# masks, uint8 (n, S, S), on the probe's device.
MapSteps = Generator[tuple[Tensor, Tensor], None, None]

# Width, height and side of one map, (D, h, w).
MapShape = tuple[int, int, int]

_SQUARE = "square of the whole image, without antialiasing"


def map_shape(subject: Subject, config: SegmentationConfig) -> MapShape:
    """Return width, height and side of the last map of one image, (D, h, w).

    Raises:
        UserError: If the network gives no map.
    """
    size = config.data.image_size
    blank = torch.zeros(1, 3, size, size, device=subject.device)
    _, width, *places = forward_frozen_map(subject.backbone, blank, config).shape
    return width, places[0], places[1]


def maps_of(subject: Subject, pixels: Tensor, config: SegmentationConfig) -> Tensor:
    """Return the last maps, float32 (n, D, h, w), of squares, uint8 (n, 3, S, S).

    Raises:
        NonFiniteFeatures: If a map is not finite.
    """
    sent = pixels.to(subject.device, non_blocking=True)
    mean, std = (
        torch.tensor(values, device=subject.device)[:, None, None]
        for values in (subject.mean, subject.std)
    )
    normalised = (sent.float() / 255 - mean) / std
    maps = forward_frozen_map(subject.backbone, normalised, config)
    if not bool(maps.isfinite().all()):
        raise NonFiniteFeatures(
            f"some images of {config.masks.name} have maps that are not finite at precision "
            f"{config.precision}, kept in {config.feature_dtype}; set precision and feature_dtype "
            "to fp32; if they are, the weights are damaged"
        )
    return maps


def online_maps(
    subject: Subject,
    images: MaskedSet,
    shape: MapShape,
    order: ReadOrder,
    first_step: int,
    config: SegmentationConfig,
) -> MapSteps:
    """Yield the maps of freshly augmented images.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Training images.
        shape: Of a map.
        order: Images of each step.
        first_step: Step to start from.
        config: The evaluation.
    """
    side = config.data.image_size
    keys = ([(epoch, int(one)) for one in own] for epoch, own in order.shares(first_step))
    loaded = load_masked(
        TrainingSamples(images, config), (own for own in keys if own), config, subject.device
    )

    def load(_: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        batch = next(loaded)
        masks = torch.stack(batch.masks).to(subject.device, non_blocking=True)
        return maps_of(subject, batch.pixels, config), masks

    with closing(loaded):
        yield from _of_shares(order, first_step, load, _nothing(shape, side, subject.device))


def cached_maps(
    subject: Subject,
    images: MaskedSet,
    entry: CacheEntry,
    shape: MapShape,
    order: ReadOrder,
    first_step: int,
    config: SegmentationConfig,
) -> MapSteps:
    """Yield maps that were computed once, without augmentation.

    Args:
        subject: Its device is where they go.
        images: Training images.
        entry: Their complete cache entry.
        shape: Of a map.
        order: Images of each step.
        first_step: Step to start from.
        config: The evaluation.
    """
    side = config.data.image_size
    rows = entry.map()
    keys = (own.tolist() for _, own in order.shares(first_step) if len(own))
    dataset = TrainingMasks(images, side)
    loaded = iterate(make_loader(dataset, keys, config.data.num_workers, subject.device))

    def load(own: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        maps = rows[torch.from_numpy(own)].to(subject.device).float()
        masks = next(loaded).to(subject.device, non_blocking=True)
        return maps.reshape(-1, *shape), masks

    with closing(loaded):
        yield from _of_shares(order, first_step, load, _nothing(shape, side, subject.device))


def _of_shares(
    order: ReadOrder,
    first_step: int,
    load: Callable[[NDArray[np.intp]], tuple[Tensor, Tensor]],
    nothing: tuple[Tensor, Tensor],
) -> MapSteps:
    """Yield this process's part of each step; of a small last batch it may be empty."""
    for _, own in order.shares(first_step):
        yield load(own) if len(own) else nothing


def _nothing(shape: MapShape, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    masks = torch.empty(0, side, side, dtype=torch.uint8, device=device)
    return torch.empty(0, *shape, device=device), masks


def ensure_maps(
    subject: Subject, images: MaskedSet, shape: MapShape, config: SegmentationConfig
) -> CacheEntry:
    """Compute the maps of images into the cache unless they are there; processes share the work.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Training images.
        shape: Of a map.
        config: The evaluation.

    Raises:
        UserError: If an image or mask cannot be used, or a map is not finite.
        Stopped: If a signal stopped it; the same call resumes it.
    """

    def rows_of(own: list[range]) -> Generator[tuple[int, Tensor], None, None]:
        for first, (maps, _) in square_maps(subject, images, config, "train maps", own):
            yield first, maps.flatten(1).cpu()

    entry = _entry(subject, images, shape, config)
    entry.ensure(map_batch_size(config), subject.device, rows_of)
    return entry


def map_batch_size(config: SegmentationConfig) -> int:
    """Return how many images pass through the backbone at a time without augmentation."""
    return config.batch_size or config.probe.batch_size


def square_maps(
    subject: Subject,
    images: MaskedSet,
    config: SegmentationConfig,
    label: str,
    batches: Sequence[range],
) -> Generator[tuple[int, tuple[Tensor, list[Tensor]]], None, None]:
    """Yield the maps of batches of images without augmentation.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Source.
        config: The evaluation.
        label: Title of the progress bar.
        batches: Their rows, of this process.

    Yields:
        Number of the batch's first image, its maps, float32 (n, D, h, w), on the subject's device,
        and the original masks.

    Raises:
        UserError: If an image or mask cannot be used, or a map is not finite.
    """
    dataset: Dataset[MaskedBatch] = TestSamples(images, config)
    loaded = load_masked(dataset, batches, config, subject.device)
    num_images = sum(map(len, batches))
    with closing(loaded), progress_bar(num_images, label, "img") as bar:
        for rows, batch in zip(batches, loaded, strict=True):
            maps = maps_of(subject, batch.pixels, config)
            yield rows.start, (maps, batch.masks)
            bar.update(len(rows))


def _entry(
    subject: Subject, images: MaskedSet, shape: MapShape, config: SegmentationConfig
) -> CacheEntry:
    network, data = network_of(subject.backbone), config.data
    weights, taken = network.identity(config)
    identity = FeatureIdentity(
        format_version=CACHE_FORMAT_VERSION,
        weights=weights,
        images=images.images.fingerprint(),
        transform=f"{_SQUARE}: {data.image_size}, {data.eval_interpolation}, mean {subject.mean}, "
        f"std {subject.std}",
        layers=(*taken, "last map", f"output stride {config.probe.output_stride}"),
        precision=config.precision,
        feature_dtype=config.feature_dtype,
        library_versions=installed_versions("torch", "torchvision", "pillow", *network.libraries),
    )
    assert config.cache_dir is not None, "checked with the settings"
    return CacheEntry(
        folder=config.cache_dir,
        name=images.images.name,
        identity=identity,
        labels=images.images.labels_of(range(len(images))),
        width=math.prod(shape),
        dtype=FEATURE_DTYPES[config.feature_dtype],
    )
