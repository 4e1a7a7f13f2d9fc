"""A data set counted, decoded and held against its published numbers."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from statistics import median_low
from typing import Any, Literal, NamedTuple

from PIL import Image

from rsa_pretrain.data import open_images
from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.data_sets import AnySplit, tar_shards
from rsa_pretrain.data_sets.published import PUBLISHED, Published
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import UNLABELLED, ImageSet
from rsa_pretrain.parallel import map_in_threads
from rsa_pretrain.read_rules import ReadRules
from rsa_pretrain.sample_labels import Label, label_indices
from rsa_pretrain.sample_rules import SampleRules, sample_rules
from rsa_pretrain.shards import ShardImage, read_shard
from rsa_pretrain.stored_modes import how_read

_SHOWN = 20


class Seen(NamedTuple):
    """One decoded image: its class, its size in pixels and its stored mode, or why it is broken."""

    label: Label
    width: int
    height: int
    mode: str
    error: str | None
    where: str = ""
    """Which it is."""
    digest: bytes = b""
    """Hash of its pixels."""


@dataclass
class SplitCheck:
    """What was found in a split.

    Attributes:
        split: Its name.
        class_sizes: Images by class name, classes without images included.
        unlabelled: Images without class.
        widths: How many whole images have which width, in pixels.
        heights: The same for the heights.
        modes: The same for the stored modes.
        broken: For each image that is not whole, which and why.
        published: What is published about the split, in words; empty if nothing is.
        problems: What is not as it should be, one sentence each.
        notes: What a user should know, one sentence each.
        digests: Where the image of each hash of pixels lies, in a set that is not published.
        shard_sizes: Images by shard, of a webdataset; those read to their end.
    """

    split: str
    class_sizes: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    published: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shard_sizes: dict[str, int] = field(default_factory=dict)
    digests: dict[bytes, str] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """All images, broken ones included."""
        return self.unlabelled + sum(self.class_sizes.values())

    def to_tree(self) -> dict[str, Any]:
        """Return everything as plain JSON-compatible values."""
        tree = {"num_images": self.num_images, **vars(self)}
        del tree["digests"]
        return tree


def check_split(config: DataConfig, split: Literal["pretrain", "test"]) -> SplitCheck:
    """Decode every image of a split and compare what is found with what is expected.

    Args:
        config: The data set; its subset settings and checks at the start are set aside.
        split: ``pretrain`` (the training images with all unlabelled ones) or ``test``.

    Raises:
        UserError: If the split cannot be opened.
    """
    whole = {"num_train_images": None, "num_test_images": None, "on_broken": "unchecked"}
    config = config.model_copy(update=whole)
    name: AnySplit = "train" if split == "pretrain" and config.name != "stl10" else split
    published = PUBLISHED.get((config.name, name), Published(None, None, None))
    check = SplitCheck(name, published=_in_words(published))
    if config.name == "webdataset":
        _check_shards(config, name, check)
    else:
        images = open_images(config, split)
        assert isinstance(images, ImageSet)
        check.class_sizes = dict.fromkeys(images.class_names, 0)
        seen = map_in_threads(partial(_see, images), range(len(images)), f"{name} images", "img")
        _count(check, seen, dict(enumerate(images.class_names)))
        if config.name == "imagefolder":
            check.problems += _stray(images)
    check.problems += _problems(check, published)
    return check


def compare_splits(train: SplitCheck, test: SplitCheck) -> None:
    """Add to the test split's problems the images with classes that training has, too."""
    shared = sorted(test.digests[digest] for digest in test.digests.keys() & train.digests.keys())
    if shared and test.class_sizes:
        test.problems.append(
            f"images that training has, too ({len(shared):,}), which make accuracy look better "
            f"than it is: {_some(shared)}"
        )


def describe(check: SplitCheck) -> Iterator[str]:
    """Yield the lines that tell a reader what was found."""
    classes = f" in {len(check.class_sizes):,} classes" if check.class_sizes else ""
    without = f", {check.unlabelled:,} of them without class" if check.unlabelled else ""
    yield f"{check.split}: {check.num_images:,} images{classes}{without}"
    if check.published:
        yield f"  published: {check.published}"
    if check.class_sizes:
        sizes = sorted((count, name) for name, count in check.class_sizes.items())
        middle = sizes[(len(sizes) - 1) // 2]
        yield "  images per class: " + ", ".join(
            f"{what} {count:,} ({name})"
            for what, (count, name) in zip(
                ("smallest", "median", "largest"), (sizes[0], middle, sizes[-1]), strict=True
            )
        )
    if check.modes:
        for what, counts in (("width", check.widths), ("height", check.heights)):
            middle_size = median_low(counts.elements())
            yield (
                f"  {what} in pixels: smallest {min(counts)}, median {middle_size}, "
                f"largest {max(counts)}"
            )
        modes = ", ".join(f"{mode} {count:,}" for mode, count in check.modes.most_common())
        yield f"  stored as {modes} (all are read as RGB)"
        for part, how in how_read(check.modes).items():
            yield f"    {part}: {how}"
    for text in check.broken[:_SHOWN]:
        yield f"  broken: {text}"
    if len(check.broken) > _SHOWN:
        yield f"  … and {len(check.broken) - _SHOWN:,} more broken images"
    for text in check.notes:
        yield f"  note: {text}"
    for text in check.problems:
        yield f"  problem: {text}"


def _see(images: ImageSet, index: int) -> Seen:
    label = UNLABELLED if images.labels is None else images.labels[index]
    try:
        image, mode = images.read(index)
    except UserError as error:
        return Seen(label, 0, 0, "", str(error).partition("; ")[0])
    return _seen(label, image, mode, images.where(index))


def _seen(label: Label, image: Image.Image, mode: str, where: str) -> Seen:
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    return Seen(label, image.width, image.height, mode, None, where, digest)


class _SeenShard(NamedTuple):
    """What a shard holds, and why it cannot be read to its end."""

    images: list[Seen]
    left_out: dict[str, list[str]]
    error: str | None


def _see_shard(url: str, rules: ReadRules, samples: SampleRules) -> _SeenShard:
    seen = _SeenShard([], {}, None)
    try:
        for image in read_shard(url, rules, samples, seen.left_out):
            seen.images.append(_see_shard_image(image))
    except UserError as error:
        return seen._replace(error=str(error))
    return seen


def _see_shard_image(image: ShardImage) -> Seen:
    try:
        decoded, mode = image.encoded.read()
    except UserError as error:
        return Seen(image.label, 0, 0, "", str(error).partition("; ")[0])
    return _seen(image.label, decoded, mode, image.encoded.where)


def _check_shards(config: DataConfig, split: AnySplit, check: SplitCheck) -> None:
    urls = tar_shards.list_shards(config, split)
    names = tar_shards.shard_names(urls)
    stated = tar_shards.stated_sizes(config, urls)
    see = partial(_see_shard, rules=config, samples=sample_rules(config))
    labels: dict[str, set[Label]] = {}
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    whole: list[str] = []
    results = map_in_threads(see, urls, f"{split} shards", "shard")
    for url, name, (seen, passed_over, error) in zip(urls, names, results, strict=True):
        labels[url] = {image.label for image in seen}
        classes = {label: str(label) for label in labels[url] - {UNLABELLED}}
        for label in sorted(classes.values()):
            check.class_sizes.setdefault(label, 0)
        _count(check, seen, classes)
        for kind, members in passed_over.items():
            left_out[kind] += members
        if error is not None:
            check.problems.append(error)
            continue
        whole.append(url)
        check.shard_sizes[name] = len(seen)
        if stated is not None:
            size = tar_shards.stated_size(stated[1], name, url)
            if size != len(seen):
                says = "nothing" if size is None else size
                check.problems.append(
                    f"shard '{name}' holds {len(seen)} images, '{stated[0]}' says {says}"
                )
    check.notes += [
        f"left out: {len(members):,} {kind}, such as '{members[0]}'"
        for kind, members in left_out.items()
    ]
    check.problems += _problems_of_classes(config, split, check, labels)
    # Pretraining streams the training shards; the test shards are an evaluation's alone.
    refusals = check.problems if split == "test" else check.notes
    refusals += tar_shards.refused_by_evaluation(config, whole, labels)


def _problems_of_classes(
    config: DataConfig, split: AnySplit, check: SplitCheck, labels: dict[str, set[Label]]
) -> Iterator[str]:
    """Put the classes in their order, those without images among them."""
    if not check.num_images:
        yield f"no image in the {len(labels)} shards of the {split} split"
        return
    try:
        names = tar_shards.classes_of(config, split, labels)
        if names:
            label_indices(names, chain.from_iterable(labels.values()))
    except UserError as error:
        yield str(error)
    else:
        check.class_sizes = {name: check.class_sizes.get(name, 0) for name in names}


def _count(check: SplitCheck, images: Iterable[Seen], class_names: Mapping[Label, str]) -> None:
    for image in images:
        if image.label == UNLABELLED:
            check.unlabelled += 1
        else:
            check.class_sizes[class_names[image.label]] += 1
        if image.error is None:
            check.widths[image.width] += 1
            check.heights[image.height] += 1
            check.modes[image.mode] += 1
            if not check.published:
                check.digests[image.digest] = image.where
        else:
            check.broken.append(image.error)


def _stray(images: ImageSet) -> Iterator[str]:
    """Yield what is wrong with images in no class folder where others are in one."""
    labels = images.labels or []
    stray = [images.where(index) for index, label in enumerate(labels) if label == UNLABELLED]
    if stray:
        yield (
            f"images in no class folder, beside class folders ({len(stray):,}): {_some(stray)}; "
            "move each into the folder of its class"
        )


def _problems(check: SplitCheck, published: Published) -> Iterator[str]:
    if check.broken:
        yield f"broken images: {len(check.broken):,}; remove or replace them"
    empty = [name for name, count in check.class_sizes.items() if count == 0]
    if empty:
        yield f"classes without images ({len(empty)}): {_some(empty)}"
    if published.num_images not in (None, check.num_images):
        yield f"{check.num_images:,} images, published are {published.num_images:,}"
    if published.num_classes not in (None, len(check.class_sizes)):
        yield f"{len(check.class_sizes):,} classes, published are {published.num_classes:,}"
    if published.images_per_class is not None:
        uneven = [
            f"{name} {count:,}"
            for name, count in check.class_sizes.items()
            if count != published.images_per_class
        ]
        if uneven:
            yield (
                f"classes that should have {published.images_per_class:,} images each "
                f"({len(uneven)}): {_some(uneven)}"
            )


def _in_words(published: Published) -> str:
    numbers = (
        (published.num_images, "images"),
        (published.num_classes, "classes"),
        (published.images_per_class, "images per class"),
    )
    return ", ".join(f"{number:,} {what}" for number, what in numbers if number is not None)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
