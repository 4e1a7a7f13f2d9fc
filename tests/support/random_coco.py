"""Draw COCO-format annotations and detections that make matching hard."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_codec

from detection.coco.masks import encode_mask

Entry = dict[str, Any]

SIDE = 192


def _random_box(random: np.random.Generator) -> list[float]:
    width, height = np.exp(random.uniform(np.log(4), np.log(0.9 * SIDE), 2))
    x, y = random.uniform(0, SIDE - width), random.uniform(0, SIDE - height)
    return [float(value) for value in (x, y, width, height)]


def _ellipse(box: list[float]) -> Entry:
    """Encode what an ellipse covers; a box of no size covers its nearest pixel."""
    x, y, width, height = box
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    mask = ((columns - x) / width - 0.5) ** 2 + ((rows - y) / height - 0.5) ** 2 <= 0.25
    mask[int(y) % SIDE, int(x) % SIDE] = True
    code = mask_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode("ascii")}


def _octagon(box: list[float]) -> list[list[float]]:
    x, y, width, height = box
    angles = np.arange(8) * np.pi / 4
    points = [x + width / 2 * (1 + np.cos(angles)), y + height / 2 * (1 + np.sin(angles))]
    return [np.stack(points, axis=1).ravel().tolist()]


def random_set(seed: int) -> tuple[Entry, list[Entry]]:
    """Draw annotations and detections with all that makes matching hard.

    Crowds, polygons and codes, areas that are not the masks', ids with gaps and in no order,
    equal scores, a category without objects, and an image with more than a hundred detections and
    objects of one category.
    """
    random = np.random.default_rng(seed)
    categories = [11, 3, 7, 40]
    images = [9, 2, 30, 17, 5]
    annotations: list[Entry] = []
    predictions: list[Entry] = []

    def annotate(image: int, category: int, box: list[float]) -> None:
        is_crowd = bool(random.random() < 0.1)
        mask = _ellipse(box) if is_crowd or random.random() < 0.5 else _octagon(box)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": float(box[2] * box[3] * random.uniform(0.5, 1)),
                "iscrowd": int(is_crowd),
                "segmentation": mask,
            }
        )

    def detect(image: int, category: int, box: list[float]) -> None:
        predictions.append(
            {
                "image_id": image,
                "category_id": category,
                "score": float(np.round(random.random(), 1)),
                "bbox": box,
                "segmentation": _ellipse(box),
            }
        )

    for image in images:
        for _ in range(random.integers(12)):
            box, category = _random_box(random), int(random.choice(categories[:3]))
            annotate(image, category, box)
            for _ in range(random.integers(3)):
                shifted = [float(value) for value in np.array(box) * random.normal(1, 0.08, 4)]
                detect(image, category, box if random.random() < 0.2 else shifted)
        for _ in range(random.integers(12)):
            detect(image, int(random.choice(categories)), _random_box(random))
    for _ in range(130):
        box = _random_box(random)
        annotate(images[0], categories[0], box)
        detect(images[0], categories[0], box)
        detect(images[0], categories[0], _random_box(random))
    return {
        "images": [{"id": image, "width": SIDE, "height": SIDE} for image in images],
        "categories": [{"id": category, "name": f"c{category}"} for category in categories],
        "annotations": annotations,
    }, predictions


def moved_objects(folder: Path, seed: int) -> tuple[Entry, list[Entry]]:
    """Read COCO's annotations and return them with themselves, moved and shuffled, as detections.

    Args:
        folder: Has ``annotations/instances_val2017.json``.
        seed: Seeds the shifts.
    """
    path = folder / "annotations" / "instances_val2017.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    random = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in tree["images"]}
    predictions = [
        {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "score": float(np.round(random.random(), 2)),
            "bbox": [float(value) for value in np.array(entry["bbox"]) * random.normal(1, 0.1, 4)],
            "segmentation": encode_mask(
                tree["annotations"][place + int(random.integers(2))]["segmentation"]
                if tree["annotations"][place + 1]["image_id"] == entry["image_id"]
                else entry["segmentation"],
                sizes[entry["image_id"]],
            ),
        }
        for place, entry in enumerate(tree["annotations"][:-1])
    ]
    return tree, predictions
