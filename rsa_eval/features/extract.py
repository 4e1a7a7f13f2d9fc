"""Extract features of a frozen backbone: every image exactly once, in order."""

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.batch_size import batch_size_on
from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.forward import FEATURE_DTYPES, device_of, feature_width, forward_batches
from rsa_eval.features.identity import CACHE_FORMAT_VERSION, FeatureIdentity
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.networks.interface import network_of
from rsa_eval.features.pixels import Load, in_processes, pixel_batches
from rsa_eval.features.placement import home_of, on_cpu
from rsa_eval.features.room import check_extraction, check_memory
from rsa_eval.features.share import ALONE, Share, own_share
from rsa_eval.features.subject import Subject
from rsa_eval.features.transforms import SquareTransform, evaluation_transform
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.device import to_device
from rsa_pretrain.plumbing.distributed import failing_together, gather
from rsa_pretrain.plumbing.versions import installed_versions


def feature_batches(
    backbone: nn.Module,
    images: ImageSet,
    transform: SquareTransform,
    config: EvaluationConfig,
    label: str,
    batches: Sequence[range],
    home: torch.device,
    load: Load = in_processes,
) -> Generator[tuple[int, Tensor], None, None]:
    """Run batches of images through a frozen backbone.

    Args:
        backbone: In eval mode, on its device.
        images: Images.
        transform: Evaluation transform.
        config: Precision, layers and loader processes.
        label: Title of the progress bar.
        batches: Their rows, of this process.
        home: Where the features go: the CPU or the backbone's device.
        load: How to load images that are not in memory.

    Yields:
        The batch's first row among all images, and its features, (n, D).

    Raises:
        ValueError: If the backbone is in train mode.
        UserError: At the end, if a feature is not finite.
    """
    device = device_of(backbone)
    workers = config.data.num_workers
    pixels = pixel_batches(images, transform, batches, workers, device, load)
    ready = (transform.normalised(to_device(batch, device)) for batch in pixels)
    num_images = sum(map(len, batches))
    found = forward_batches(backbone, ready, num_images, config, label, images.name)
    arrived = on_cpu(found) if home.type == "cpu" else found
    for rows, features in zip(batches, arrived, strict=True):
        yield rows.start, features


def extract_features(
    backbone: nn.Module,
    images: ImageSet,
    transform: SquareTransform,
    config: EvaluationConfig,
    label: str,
    share: Share = ALONE,
    load: Load = in_processes,
) -> LabelledFeatures:
    """Return the features of all images, in memory as ``config.feature_dtype``.

    The batches are those a single process would make, so features are bitwise the same.

    They are on the backbone's device if they fit into a quarter of its free memory, else on the
    CPU.

    Args:
        backbone: In eval mode, on its device.
        images: Images.
        transform: Evaluation transform.
        config: Batch size, precision, layers and loader processes.
        label: Title of the progress bar.
        share: This process's part of the work; every process receives the whole result.
        load: How to load images that are not in memory.

    Raises:
        ValueError: If the backbone is in train mode.
        UserError: If they do not fit into memory, or a feature is not finite.
    """
    check_extraction(backbone, images, config, share)
    labels = images.labels_of(range(len(images)))
    device, dtype = device_of(backbone), FEATURE_DTYPES[config.feature_dtype]
    size, width = batch_size_on(device, backbone, config), feature_width(backbone, config)
    home = home_of(len(images) * width * dtype.itemsize, device)
    most_batches = len(Share(0, share.count).batches(len(images), size))
    own = torch.zeros(most_batches, size, width, dtype=dtype, device=home)
    batches = share.batches(len(images), size)
    found = feature_batches(backbone, images, transform, config, label, batches, home, load)
    with failing_together() if share.count > 1 else nullcontext():
        for place, (_, features) in enumerate(found):
            own[place, : len(features)] = features
    if share.count > 1:
        every = gather(own.to(device)).to(home)
        own = every.view(share.count, most_batches, size, width).transpose(0, 1)
    return LabelledFeatures(own.reshape(-1, width)[: len(images)], labels)


def stored_features(
    subject: Subject, images: ImageSet, config: EvaluationConfig, label: str
) -> LabelledFeatures:
    """Return the features of all images, of type ``config.feature_dtype``, where they fit.

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
    check_memory(subject, config, [images])
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
        Stopped: If a signal stopped the extraction; the same call resumes it.
    """
    entry = cache_entry(subject, images, config, folder)
    backbone, cpu = subject.backbone, torch.device("cpu")
    transform = evaluation_transform(config.data, subject.mean, subject.std)
    entry.ensure(
        batch_size_on(subject.device, backbone, config),
        subject.device,
        lambda own: feature_batches(backbone, images, transform, config, label, own, cpu),
    )
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
    network = network_of(subject.backbone)
    weights, taken = network.identity(config)
    identity = FeatureIdentity(
        format_version=CACHE_FORMAT_VERSION,
        weights=weights,
        images=images.fingerprint(),
        transform=repr(evaluation_transform(config.data, subject.mean, subject.std).steps),
        layers=taken,
        precision=config.precision,
        feature_dtype=config.feature_dtype,
        library_versions=installed_versions("torch", "torchvision", "pillow", *network.libraries),
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

    They may be mapped from a file, or be on the subject's device. Features stored in fp16 are
    converted in memory.

    Args:
        subject: Backbone, frozen and in eval mode, on its device, and its pixel statistics.
        images: Images.
        config: The evaluation.
        label: Title of the progress bar.

    Raises:
        UserError: As ``extract_features``.
    """
    check_memory(subject, config, [images], as_float32=True)
    stored = stored_features(subject, images, config, label)
    return LabelledFeatures(stored.features.float(), stored.labels)
