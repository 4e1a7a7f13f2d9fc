"""Split an annotation file's images into training and test, with categories spread over both.

A simple form of Sechidis et al. 2011 (On the Stratification of Multi-Label Data): labels are
assigned from the rarest to the most common, and each chosen image also counts for its other labels.
"""

import json
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detection.coco.sets import CocoSet, reason_to_leave_out
from rsa_pretrain.plumbing.errors import UserError

CocoJSON = dict[str, Any]
Stratum = int | str
"""A category id, or one of the words below."""
ImageGroup = frozenset[int]
"""Ids of images that share a file and stay together."""

_EVERY, _EMPTY, _CROWDED = "every image", "without annotations", "with crowds"

_WRITER = {"written_by": "rsa-detect init"}
PART_OPENING = json.dumps({"info": _WRITER}).rstrip("}")
"""Beginning of every annotation file that contains a part of another's images."""


class TrainTestSets(NamedTuple):
    """The two parts of a set."""

    train: CocoJSON
    test: CocoJSON
    one_sided: dict[str, int]
    """Categories with objects in training only: number of image files by name."""


def split_set(coco: CocoSet, test_share: float, seed: int) -> TrainTestSets:
    """Split a set by images; training keeps an image of each category.

    Entries that list the same file stay together.

    Args:
        coco: The set.
        test_share: Share of the images that become the test set, above 0 and below 1.
        seed: Determines the choice.

    Raises:
        UserError: If objects are on fewer than two files, or each of the files with objects is a
            category's only one.
    """
    labels = _labels(coco)
    of_category = Counter(label for found in labels.values() for label in found)
    num_with_objects = sum(any(type(label) is int for label in of) for of in labels.values())
    if num_with_objects < 2:
        raise UserError(
            f"'{coco.annotations_path}' has objects on {num_with_objects} of "
            f"{len(labels)} images; a split needs two with objects: annotate more, or give --test"
        )
    chosen = _choose_test(labels, test_share, seed)
    tested = {label for group in chosen for label in labels[group]}
    if not any(type(label) is int for label in tested):
        raise UserError(
            f"'{coco.annotations_path}' cannot be split: each of the {num_with_objects} images "
            "with objects is the only one with some category; annotate more, or give --test"
        )
    test_ids = {number for group in chosen for number in group}
    train_ids = {image["id"] for image in coco.images} - test_ids
    one_sided = {
        name: of_category[number]
        for number, name in sorted(coco.category_names.items())
        if of_category[number] and number not in tested
    }
    return TrainTestSets(
        _part(coco, train_ids, f"training part, seed {seed}"),
        _part(coco, test_ids, f"test part, a share of {test_share:g}, seed {seed}"),
        one_sided,
    )


def _labels(coco: CocoSet) -> dict[ImageGroup, frozenset[Stratum]]:
    """Return the labels to be spread over the parts, for each group of images."""
    sizes = coco.sizes
    found: dict[int, set[Stratum]] = {number: set() for number in sizes}
    for entry in coco.tree["annotations"]:
        number = entry["image_id"]
        if reason_to_leave_out(entry, sizes[number]) is None:
            found[number].add(entry["category_id"])
        # An image with skipped annotations must not count as one without annotations.
        found[number].add(_CROWDED if entry.get("iscrowd", 0) else _EVERY)
    by_file: dict[Path, list[int]] = {}
    for image in coco.images:
        by_file.setdefault(coco.images_dir / image["file_name"], []).append(image["id"])
    return {
        frozenset(numbers): frozenset({_EVERY}.union(*(found[n] or {_EMPTY} for n in numbers)))
        for numbers in by_file.values()
    }


def _choose_test(
    labels: Mapping[ImageGroup, Collection[Stratum]], test_share: float, seed: int
) -> list[ImageGroup]:
    """Choose the groups of the test set; the last of a label stays in training."""
    count = Counter(label for found in labels.values() for label in found)
    wanted = {label: max(1, round(test_share * number)) for label, number in count.items()}
    in_test: Counter[Stratum] = Counter()
    chosen: list[ImageGroup] = []

    def is_spare(group: ImageGroup) -> bool:
        return all(in_test[label] + 1 < count[label] for label in labels[group])

    def num_satisfied(group: ImageGroup) -> int:
        return sum(in_test[label] >= wanted[label] for label in labels[group])

    free = sorted(labels, key=min)
    random.Random(seed).shuffle(free)
    for label in sorted(count, key=lambda label: (count[label], str(label))):
        # Images whose other labels still need some come first; the stable sort keeps the shuffle.
        for group in sorted((g for g in free if label in labels[g]), key=num_satisfied):
            if in_test[label] >= wanted[label]:
                break
            if is_spare(group):
                chosen.append(group)
                in_test.update(labels[group])
        taken = set(chosen)
        free = [group for group in free if group not in taken]
    return chosen


def _part(coco: CocoSet, image_ids: Collection[int], what: str) -> CocoJSON:
    """Return the file's content with these images alone; its ``info`` states the source."""
    theirs = coco.tree.get("info")
    kept = theirs if isinstance(theirs, dict) else {} if theirs is None else {"info": theirs}
    info = {**_WRITER, "part": f"{what}, of '{coco.annotations_path}'"}
    sections: dict[str, Sequence[Any]] = {
        "images": [image for image in coco.tree["images"] if image["id"] in image_ids],
        "annotations": [
            entry for entry in coco.tree["annotations"] if entry["image_id"] in image_ids
        ],
    }
    return {"info": {**info, **{k: v for k, v in kept.items() if k not in info}}} | {
        key: sections.get(key, value) for key, value in coco.tree.items() if key != "info"
    }
