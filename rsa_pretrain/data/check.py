"""Count and decode a data set, and compare it with its published numbers."""

from collections.abc import Iterator
from functools import partial
from statistics import median_low
from typing import Literal

from rsa_pretrain.data.image_set import UNLABELLED, ImageSet
from rsa_pretrain.data.open_images import open_images, published_counts
from rsa_pretrain.data.sets import AnySplit, Counts, data_set
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards.check import check_shards
from rsa_pretrain.data.split_findings import DecodedImage, SplitFindings, decode_image
from rsa_pretrain.data.stored_modes import how_read
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.threads import map_in_threads

_SHOWN = 20


def check_split(config: DataConfig, split: Literal["pretrain", "test"]) -> SplitFindings:
    """Decode every image of a split and compare what is found with what is expected.

    Args:
        config: The data set; its subset settings and checks at the start are ignored.
        split: ``pretrain`` (the training images with all unlabelled ones) or ``test``.

    Raises:
        UserError: If the split cannot be opened.
    """
    whole = {"num_train_images": None, "num_test_images": None, "on_broken": "unchecked"}
    config = config.model_copy(update=whole)
    counts = data_set(config.name).counts
    name: AnySplit = "train" if split == "pretrain" and split not in counts else split
    published = published_counts(config, name)
    findings = SplitFindings(name, published=_in_words(published))
    if config.name == "webdataset":
        check_shards(config, name, findings)
    else:
        images = open_images(config, split)
        assert isinstance(images, ImageSet)
        findings.class_sizes = dict.fromkeys(images.class_names, 0)
        seen = map_in_threads(partial(_decode, images), range(len(images)), f"{name} images", "img")
        findings.count(seen, dict(enumerate(images.class_names)))
        if config.name == "imagefolder":
            findings.problems += _stray(images)
    findings.problems += _problems(findings, published)
    return findings


def compare_splits(train: SplitFindings, test: SplitFindings) -> None:
    """Add to the test split's problems the labelled images that are also in training."""
    shared = sorted(test.digests[digest] for digest in test.digests.keys() & train.digests.keys())
    if shared and test.class_sizes:
        test.problems.append(
            f"images that are also in training ({len(shared):,}), which make accuracy look better "
            f"than it is: {first_of(shared, _SHOWN)}"
        )


def describe(findings: SplitFindings) -> Iterator[str]:
    """Yield the lines of a report of what was found."""
    classes = f" in {len(findings.class_sizes):,} classes" if findings.class_sizes else ""
    without = f", {findings.unlabelled:,} of them without a class" if findings.unlabelled else ""
    yield f"{findings.split}: {findings.num_images:,} images{classes}{without}"
    if findings.published:
        yield f"  published: {findings.published}"
    if findings.class_sizes:
        sizes = sorted((count, name) for name, count in findings.class_sizes.items())
        middle = sizes[(len(sizes) - 1) // 2]
        yield "  images per class: " + ", ".join(
            f"{what} {count:,} ({name})"
            for what, (count, name) in zip(
                ("smallest", "median", "largest"), (sizes[0], middle, sizes[-1]), strict=True
            )
        )
    if findings.modes:
        for what, counts in (("width", findings.widths), ("height", findings.heights)):
            middle_size = median_low(counts.elements())
            yield (
                f"  {what} in pixels: smallest {min(counts)}, median {middle_size}, "
                f"largest {max(counts)}"
            )
        modes = ", ".join(f"{mode} {count:,}" for mode, count in findings.modes.most_common())
        yield f"  stored as {modes} (all are read as RGB)"
        for part, how in how_read(findings.modes).items():
            yield f"    {part}: {how}"
    for text in findings.broken[:_SHOWN]:
        yield f"  broken: {text}"
    if len(findings.broken) > _SHOWN:
        yield f"  … and {len(findings.broken) - _SHOWN:,} more broken images"
    for text in findings.notes:
        yield f"  note: {text}"
    for text in findings.problems:
        yield f"  problem: {text}"


def _decode(images: ImageSet, index: int) -> DecodedImage:
    label = UNLABELLED if images.labels is None else images.labels[index]
    return decode_image(label, images.where(index), partial(images.read, index))


def _stray(images: ImageSet) -> Iterator[str]:
    """Yield a problem if some images are in no class folder while others are in one."""
    labels = images.labels or []
    stray = [images.where(index) for index, label in enumerate(labels) if label == UNLABELLED]
    if stray:
        yield (
            f"images in no class folder, beside class folders ({len(stray):,}): "
            f"{first_of(stray, _SHOWN)}; move each into the folder of its class"
        )


def _problems(findings: SplitFindings, published: Counts) -> Iterator[str]:
    if findings.broken:
        yield f"broken images: {len(findings.broken):,}; remove or replace them"
    empty = [name for name, count in findings.class_sizes.items() if count == 0]
    if empty:
        yield f"classes without images ({len(empty)}): {first_of(empty, _SHOWN)}"
    if published.images not in (None, findings.num_images):
        yield f"{findings.num_images:,} images, published {published.images:,}"
    if published.classes not in (None, len(findings.class_sizes)):
        yield f"{len(findings.class_sizes):,} classes, published {published.classes:,}"
    if published.images_per_class is not None:
        uneven = [
            f"{name} {count:,}"
            for name, count in findings.class_sizes.items()
            if count != published.images_per_class
        ]
        if uneven:
            yield (
                f"classes that should have {published.images_per_class:,} images each "
                f"({len(uneven)}): {first_of(uneven, _SHOWN)}"
            )


def _in_words(published: Counts) -> str:
    numbers = (
        (published.images, "images"),
        (published.classes, "classes"),
        (published.images_per_class, "images per class"),
    )
    return ", ".join(f"{number:,} {what}" for number, what in numbers if number is not None)
