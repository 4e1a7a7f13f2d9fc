"""Randomly damaged annotations and predictions."""

import copy
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from detection.coco.evaluation import evaluate_in_detail
from detection.coco.masks import encode_mask, has_mask, render_mask
from detection.coco.results import iou_types_of, read_predictions
from detection.coco.sets import check_objects, mask_gap, open_coco, training_images
from detection.survey.data_check import check_set
from rsa_pretrain.plumbing.errors import UserError

NUM_TRIALS = 250
SIZE = (10, 20)
SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 1.5, 1e9, -1e9, float("nan"), float("inf"), 10**30, 10**400),
    *("", "x", "zzzz", "é", "0" * 50, [], {}, [[]], [1], [1, 2, 3, 4], [SQUARE, []]),
    *({"size": [10, 20], "counts": "f"}, {"size": [10**6, 10**6], "counts": [1]}),
]


def _sound() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    code = encode_mask([SQUARE], SIZE)
    text = {"size": list(SIZE), "counts": code["counts"].decode("ascii")}
    runs = {"size": list(SIZE), "counts": [22, 4, 6, 4, 6, 4, 6, 4, 144]}
    annotations = [
        {
            "id": number,
            "image_id": 1 + number % 2,
            "category_id": 1 + number % 2,
            "bbox": [2.0, 2.0, 4.0, 4.0],
            "area": 16.0,
            "iscrowd": 0,
            "segmentation": ([SQUARE], text, runs)[number % 3],
        }
        for number in range(1, 7)
    ]
    tree = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": 10, "width": 20}
            for number in (1, 2)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    keys = ("image_id", "category_id", "bbox")
    predictions = [
        {**{key: entry[key] for key in keys}, "score": 0.9, "segmentation": text}
        for entry in annotations
    ]
    return copy.deepcopy(tree), copy.deepcopy(predictions)


def _damage(tree: Any, draw: random.Random) -> None:
    """Replace, drop, double or misspell one value, most often a deep one."""
    parent, key, node = None, None, tree
    while isinstance(node, dict | list) and node and (parent is None or draw.random() < 0.85):
        parent, key = node, draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = parent[key]
    assert parent is not None
    kind = draw.random()
    if kind < 0.15:
        del parent[key]
    elif kind < 0.25 and isinstance(parent, list):
        parent.append(copy.deepcopy(node))
    elif kind < 0.4 and isinstance(node, str):
        parent[key] = node[: draw.randrange(len(node) + 1)] + draw.choice("0azP`~") + node[1:]
    else:
        parent[key] = copy.deepcopy(draw.choice(JUNK))


def test_damaged_files_are_refused_or_usable(tmp_path: Path) -> None:
    """After each of 250 random damages every step ends well or with one user error, no other."""
    for number in (1, 2):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{number}.png")
    draw = random.Random(4)
    annotations, results = tmp_path / "annotations.json", tmp_path / "predictions.json"
    num_refused = 0
    for _ in range(NUM_TRIALS):
        tree, predictions = _sound()
        _damage(*draw.choices([(tree, draw), (predictions, draw)], [0.7, 0.3])[0])
        annotations.write_text(json.dumps(tree), encoding="utf-8")
        results.write_text(json.dumps(predictions), encoding="utf-8")
        try:
            check_set(annotations, tmp_path, "train").to_tree()
            coco = open_coco(annotations, tmp_path)
            for image in training_images(coco):
                for entry in image.annotations:
                    if has_mask(entry.get("segmentation")):
                        render_mask(entry["segmentation"], (image.height, image.width), (15, 30))
            check_objects(annotations, coco.tree)
            found = read_predictions(results, coco.tree)
            kinds = iou_types_of(found) if mask_gap(coco.tree) is None else ["bbox"]
            evaluate_in_detail(coco.tree, found, kinds)
        except UserError:
            num_refused += 1
    assert 0.3 * NUM_TRIALS < num_refused < 0.95 * NUM_TRIALS
