"""Compare detectron2's evaluator with ours on the same predictions."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_codec

from detection.coco.evaluation import METRICS, evaluate_in_detail
from detection.coco.masks import render_mask
from detection.coco.results import read_predictions

pytestmark = pytest.mark.detectron2

Tree = dict[str, Any]
Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]


def _blurred(tree: Tree, seed: int) -> dict[int, Found]:
    """Detect four of five objects with noise: boxes, scores, category positions and masks."""
    random = np.random.default_rng(seed)
    ids = sorted(category["id"] for category in tree["categories"])
    found: dict[int, Found] = {}
    for image in tree["images"]:
        size = (image["height"], image["width"])
        boxes, scores, places, masks = [], [], [], []
        for entry in tree["annotations"]:
            if entry["image_id"] != image["id"] or random.random() < 0.2:
                continue
            x, y, width, height = np.array(entry["bbox"]) * random.normal(1, 0.05, 4)
            boxes.append([x, y, x + width, y + height])
            scores.append(random.random())
            is_right = random.random() < 0.8
            places.append(
                ids.index(entry["category_id"]) if is_right else random.integers(len(ids))
            )
            shift = random.integers(-3, 4, 2)
            masks.append(np.roll(render_mask(entry["segmentation"], size, size), shift, (0, 1)) > 0)
        found[image["id"]] = (
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.array(places, np.int64),
            np.array(masks, bool).reshape(-1, *size),
        )
    return found


def _in_coco_format(found: dict[int, Found], ids: list[int]) -> list[Tree]:
    predictions = []
    for image_id, arrays in found.items():
        for box, score, place, mask in zip(*arrays, strict=True):
            x0, y0, x1, y1 = (float(value) for value in box)
            code = mask_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
            predictions.append(
                {
                    "image_id": image_id,
                    "category_id": ids[place],
                    "score": float(score),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {
                        "size": code["size"],
                        "counts": code["counts"].decode("ascii"),
                    },
                }
            )
    return predictions


def _by_detectron2(annotations: Path, found: dict[int, Found], folder: Path) -> Any:
    """Hand detections to COCOEvaluator as a detectron2 model does; return its results."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances

    name = f"evaluators_agree_{folder}"
    register_coco_instances(name, {}, str(annotations), "")
    DatasetCatalog.get(name)  # fills in the map of category ids
    evaluator = COCOEvaluator(
        name,
        tasks=("bbox", "segm"),
        distributed=False,
        output_dir=str(folder),
        use_fast_impl=importlib.util.find_spec("detectron2._C") is not None,
    )
    evaluator.reset()
    for image_id, (boxes, scores, places, masks) in found.items():
        instances = Instances(masks.shape[1:])
        instances.pred_boxes = Boxes(torch.from_numpy(boxes))
        instances.scores = torch.from_numpy(scores)
        instances.pred_classes = torch.from_numpy(places)
        instances.pred_masks = torch.from_numpy(masks)
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    results = evaluator.evaluate()
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    return results


def _compare(annotations: Path, folder: Path) -> None:
    tree = json.loads(annotations.read_text(encoding="utf-8"))
    found = _blurred(tree, seed=1)
    theirs = _by_detectron2(annotations, found, folder)
    ids = sorted(category["id"] for category in tree["categories"])
    ours = evaluate_in_detail(tree, _in_coco_format(found, ids))
    assert 5 < ours.metrics["bbox_AP"] < 95
    assert 5 < ours.metrics["segm_AP"] < 95
    for kind in ("bbox", "segm"):
        for name in METRICS:
            expected = theirs[kind][name]
            if np.isnan(expected):
                assert f"{kind}_{name}" not in ours.metrics
            else:
                assert ours.metrics[f"{kind}_{name}"] == pytest.approx(expected, abs=1e-9)
        for entry in ours.by_category:
            expected = theirs[kind][f"AP-{entry['name']}"]
            if np.isnan(expected):
                assert entry[f"{kind}_AP"] is None
            else:
                assert entry[f"{kind}_AP"] == pytest.approx(expected, abs=1e-9)
    # The file that detectron2 wrote is read and evaluated as its own predictions are.
    theirs_read = read_predictions(folder / "coco_instances_results.json", tree)
    again = evaluate_in_detail(tree, theirs_read)
    assert again.metrics == pytest.approx(ours.metrics, abs=1e-9)


def test_on_drawn_shapes(shapes_folder: Path, tmp_path: Path) -> None:
    """Every metric and every category's AP is the same."""
    _compare(shapes_folder / "annotations" / "instances_train.json", tmp_path)


@pytest.mark.real_data
@pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set")
def test_on_real_coco(tmp_path: Path) -> None:
    """The same on photographs: 80 categories with gaps, crowds as run-length codes, all sizes."""
    root = Path(os.environ["RSA_DATA"]) / "coco_mini"
    _compare(root / "annotations" / "instances_val2017.json", tmp_path)
