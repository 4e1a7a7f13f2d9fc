"""Draw annotated images, with predictions beside them, as cards of a picture page."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from pycocotools import mask as mask_codec

from detection.coco.box_forms import Entry, box_of
from detection.coco.counted_objects import is_difficult
from detection.coco.evaluation import Prediction
from detection.coco.images import read_annotated_image, read_image
from detection.coco.masks import has_mask
from detection.coco.matching import match
from detection.coco.sets import CocoSet
from detection.pictures.page import Card, DrawnObject, Panel

MOST_PER_IMAGE = 1000

Item = TypeVar("Item")


def annotated_cards(coco: CocoSet, usable: Collection[int], num_images: int) -> list[Card]:
    """Draw a sample of images with their annotations.

    Args:
        coco: The valid entries of a set.
        usable: Ids of the images that can be drawn.
        num_images: Number of cards, spread evenly over the usable images with annotations, or over
            all usable images if none has any.
    """
    by_image = _by_image(coco.tree["annotations"])
    images = [image for image in coco.images if image["id"] in usable]
    annotated = [image for image in images if image["id"] in by_image]
    ranks = _ranks(coco)
    cards = []
    for image in _spread(annotated or images, num_images):
        photo = read_image(coco.images_dir / image["file_name"], coco.rules)
        panel = Panel("", _objects(by_image[image["id"]], image, ranks))
        cards.append(Card(image["file_name"], photo, [panel]))
    return cards


def images_with_objects(coco: CocoSet, predictions: Sequence[Prediction]) -> list[Entry]:
    """Return the images with an annotation or a detection."""
    shown = {entry["image_id"] for entry in [*coco.tree["annotations"], *predictions]}
    return [image for image in coco.images if image["id"] in shown]


def predicted_cards(
    coco: CocoSet, predictions: Sequence[Prediction], num_images: int
) -> list[Card]:
    """Draw a sample of images twice, with annotations and with detections.

    Objects are marked as found or missed, detections as right or wrong. At most the 1,000
    highest-scoring detections of an image are drawn; the title says if there are more. Images of a
    file without annotations are drawn once, with their detections.

    Args:
        coco: The set that was searched.
        predictions: With the set's ids.
        num_images: Number of cards, spread evenly over the images that have either.

    Raises:
        UserError: If an image cannot be decoded or differs in size from its annotation.
    """
    truth, found = _by_image(coco.tree["annotations"]), _by_image(predictions)
    ranks = _ranks(coco)
    cards = []
    for image in _spread(images_with_objects(coco, predictions), num_images):
        size = (image["height"], image["width"])
        photo = read_annotated_image(coco.images_dir / image["file_name"], size, coco.rules)
        annotated, detected = truth[image["id"]], _highest(found[image["id"]])
        title = _title(len(detected), len(found[image["id"]]))
        if not coco.is_annotated:
            panels = [Panel(title, _objects(detected, image, ranks))]
            cards.append(Card(image["file_name"], photo, panels))
            continue
        matches = match(annotated, detected)
        scores = {
            place: entry["score"]
            for place, entry in zip(matches, detected, strict=True)
            if place is not None
        }
        targets = [
            replace(drawn, is_target=not drawn.is_special, found_score=scores.get(place))
            for place, drawn in enumerate(_objects(annotated, image, ranks))
        ]
        results = [
            replace(drawn, is_special=place is None)
            for place, drawn in zip(matches, _objects(detected, image, ranks), strict=True)
        ]
        panels = [Panel("annotated", targets, "missed"), Panel(title, results, "wrong")]
        cards.append(Card(image["file_name"], photo, panels))
    return cards


def _objects(
    entries: Sequence[Entry], image: Entry, ranks: Mapping[int, tuple[int, str]]
) -> list[DrawnObject]:
    """Convert an image's entries for drawing, in order; crowds and difficult ones are special."""
    objects = []
    for entry in entries:
        rank, name = ranks[entry["category_id"]]
        score = entry.get("score")
        mark = "crowd" if entry.get("iscrowd", 0) else "difficult" if is_difficult(entry) else None
        label = name if mark is None else f"{name} ({mark})"
        segmentation = entry.get("segmentation")
        objects.append(
            DrawnObject(
                category=rank,
                label=label if score is None else f"{label} {score:.2f}",
                box=box_of(entry, (image["height"], image["width"])),
                segmentation=segmentation if has_mask(segmentation) else None,
                score=score,
                is_special=mark is not None,
            )
        )
    return objects


def _highest(found: Sequence[Prediction]) -> list[Prediction]:
    ordered = sorted(found, key=lambda entry: -float(entry["score"]))
    return [_with_box(entry) for entry in ordered[:MOST_PER_IMAGE]]


def _title(num_drawn: int, num_found: int) -> str:
    """Return the title of the detections' panel; the page appends the number drawn."""
    return "found" if num_drawn == num_found else f"highest of {num_found:,} found:"


def _with_box(prediction: Prediction) -> Prediction:
    """Add the bounding box to a detection that has only a mask."""
    if "bbox" in prediction:
        return prediction
    return {**prediction, "bbox": mask_codec.toBbox(prediction["segmentation"]).tolist()}


def _ranks(coco: CocoSet) -> dict[int, tuple[int, str]]:
    names = coco.category_names
    return {number: (rank, names[number]) for rank, number in enumerate(coco.category_ids)}


def _by_image(entries: Sequence[Entry]) -> defaultdict[int, list[Entry]]:
    by_image: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_image[entry["image_id"]].append(entry)
    return by_image


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Take ``count`` evenly spaced items, or all."""
    if count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
