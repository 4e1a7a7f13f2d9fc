"""Test VOC's average precision by hand, by exact fractions and by detectron2."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voc_ap import average_precision

from detection.coco.evaluation import evaluate_in_detail
from detection.coco.voc.evaluation import with_voc_metrics
from detection.coco.voc.precision import VOC_IOUS, area_ap, eleven_point_ap, voc_precision

Tree = dict[str, Any]

BOX = [10.0, 10.0, 20.0, 20.0]
FAR = [60.0, 60.0, 20.0, 20.0]


def _tree(*objects: dict[str, Any]) -> Tree:
    """Images 1 and 2; categories 5 and, without objects, 7."""
    return {
        "images": [{"id": number, "height": 100, "width": 100} for number in (1, 2)],
        "categories": [{"id": 5, "name": "a"}, {"id": 7, "name": "b"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 5, "iscrowd": 0, **entry}
            for number, entry in enumerate(objects, start=1)
        ],
    }


def _found(box: list[float], score: float, **changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 5, "bbox": box, "score": score, **changes}


def _at_50(tree: Tree, *predictions: dict[str, Any]) -> tuple[float, float]:
    """AP of the first category at IoU 0.5, of eleven recalls and of the area."""
    eleven, area = voc_precision(tree, predictions)
    return float(eleven[0, 0]), float(area[0, 0])


def test_precision_and_recall_by_hand() -> None:
    """Right, wrong, right of two objects: precision 1 up to recall 0.5, then 2/3.

    Eleven recalls: six of 1 and five of 2/3; the area: half of 1 and half of 2/3.
    """
    tree = _tree({"bbox": BOX}, {"bbox": FAR})
    found = _found(BOX, 0.9), _found([0.0, 80.0, 5.0, 5.0], 0.8), _found(FAR, 0.7)
    assert _at_50(tree, *found) == pytest.approx(((6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2))


def test_a_recall_that_is_not_reached_is_zero() -> None:
    """One of two objects, after a wrong detection: recalls 0 to 0.5 at precision 1/2."""
    tree = _tree({"bbox": BOX}, {"bbox": FAR})
    found = _found([0.0, 80.0, 5.0, 5.0], 0.9), _found(BOX, 0.8)
    assert _at_50(tree, *found) == pytest.approx((6 / 2 / 11, 1 / 4))


def test_a_second_detection_of_an_object_is_wrong() -> None:
    """Even if it fits better: the higher score takes the object."""
    tree = _tree({"bbox": BOX}, {"bbox": FAR})
    found = _found([11.0, 10.0, 20.0, 20.0], 0.9), _found(BOX, 0.8), _found(FAR, 0.7)
    assert _at_50(tree, *found) == pytest.approx(((6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2))


def test_a_detection_does_not_look_for_another_free_object() -> None:
    """It is on the object of highest IoU, found already; by COCO's rule it takes the other one."""
    near = [10.0, 10.0, 20.0, 16.0]
    tree = _tree({"bbox": BOX}, {"bbox": near})
    found = [_found(BOX, 0.9), _found([10.0, 10.0, 20.0, 19.0], 0.8)]
    assert _at_50(tree, *found) == pytest.approx((6 / 11, 1 / 2))
    evaluation = with_voc_metrics(evaluate_in_detail(tree, found, ["bbox"]), tree, found)
    assert evaluation.metrics["bbox_AP50"] == pytest.approx(100.0)
    assert evaluation.metrics["voc_AP50"] == pytest.approx(600 / 11)


@pytest.mark.parametrize("mark", ["difficult", "iscrowd"])
def test_detections_of_a_difficult_object_count_neither_way(mark: str) -> None:
    """Not one, not several, nor is it missed; an ordinary IoU decides."""
    tree = _tree({"bbox": BOX}, {"bbox": FAR, mark: 1})
    on_it = [_found(FAR, 0.95), _found(FAR, 0.9)]
    assert _at_50(tree, *on_it, _found(BOX, 0.5)) == (1.0, 1.0)
    assert _at_50(tree, _found(BOX, 0.5)) == (1.0, 1.0)
    inside = _found([65.0, 65.0, 5.0, 5.0], 0.9)  # an IoU of 25 / 400
    assert _at_50(tree, inside, _found(BOX, 0.5)) == pytest.approx((1 / 2, 1 / 2))


def test_a_detection_is_of_the_object_of_highest_iou_difficult_or_not() -> None:
    """The difficult one takes it away from an object that it would find."""
    tree = _tree({"bbox": BOX}, {"bbox": [10.0, 10.0, 20.0, 18.0], "difficult": 1})
    assert _at_50(tree, _found([10.0, 10.0, 20.0, 17.0], 0.9)) == (0.0, 0.0)


def test_an_iou_at_the_threshold_is_enough() -> None:
    """The kit tests >=: 11 of 20 rows are an IoU of 0.55 and pass that threshold, not 0.60."""
    eleven, _ = voc_precision(_tree({"bbox": BOX}), [_found([10.0, 10.0, 20.0, 11.0], 0.9)])
    assert eleven[0].tolist() == [1.0, 1.0, *[0.0] * 8]
    for rows, passed in ((10, 1), (12, 3), (13, 4), (14, 5), (15, 6), (18, 9), (19, 10)):
        found = [_found([10.0, 10.0, 20.0, float(rows)], 0.9)]
        eleven, area = voc_precision(_tree({"bbox": BOX}), found)
        assert eleven[0].sum() == area[0].sum() == passed


def test_equal_scores_rank_by_image_and_then_as_given() -> None:
    """Whatever their order among the predictions of several images."""
    tree = _tree({"bbox": BOX})
    wrong, right = _found(FAR, 0.5), _found(BOX, 0.5)
    assert _at_50(tree, wrong, right) == pytest.approx((0.5, 0.5))
    assert _at_50(tree, right, wrong) == (1.0, 1.0)
    later = {**wrong, "image_id": 2}
    assert _at_50(tree, later, right) == _at_50(tree, right, later) == (1.0, 1.0)


def test_classes_without_objects_do_not_count() -> None:
    """Their AP is none, and the mean leaves them out; a class of difficult objects is like them."""
    tree = _tree({"bbox": BOX}, {"bbox": FAR, "category_id": 7, "difficult": 1})
    found = [_found(BOX, 0.9), _found(FAR, 0.9, category_id=7)]
    evaluation = with_voc_metrics(evaluate_in_detail(tree, found, ["bbox"]), tree, found)
    assert evaluation.metrics["voc_AP"] == evaluation.metrics["voc_area_AP75"] == 100.0
    names = [f"{kind}_{name}" for kind in ("voc", "voc_area") for name in ("AP", "AP50", "AP75")]
    assert [evaluation.by_category[0][name] for name in names] == [100.0] * 6
    assert [evaluation.by_category[1][name] for name in names] == [None] * 6
    eleven, area = voc_precision(tree, found)
    assert np.isnan(eleven[1]).all()
    assert np.isnan(area[1]).all()


def test_nothing_found_is_zero() -> None:
    """Not undefined, where there are objects."""
    assert _at_50(_tree({"bbox": BOX})) == (0.0, 0.0)
    tree = _tree({"bbox": BOX})
    evaluation = with_voc_metrics(evaluate_in_detail(tree, [], ["bbox"]), tree, [])
    assert evaluation.metrics["voc_AP"] == evaluation.metrics["voc_area_AP"] == 0.0


def test_without_any_object_there_is_no_average() -> None:
    """The metrics are left out, as COCO's are."""
    tree = _tree({"bbox": BOX, "difficult": 1})
    evaluation = with_voc_metrics(evaluate_in_detail(tree, [], ["bbox"]), tree, [])
    assert evaluation.metrics == {}


def test_recalls_are_reached_exactly() -> None:
    """3, 6 and 7 of ten objects reach 0.3, 0.6 and 0.7, which float64 rounds up."""
    for hits in range(11):
        assert eleven_point_ap(np.ones(hits), 10) == pytest.approx((hits + (hits > 0)) / 11)
        assert area_ap(np.ones(hits), 10) == hits / 10


def _random_case(seed: int) -> tuple[Tree, list[dict[str, Any]]]:
    """Whole pixels, tied scores, difficult objects, several detections of each."""
    random = np.random.default_rng(seed)
    objects, found = [], []
    for image in (1, 2):
        for _ in range(12):
            x, y = (int(value) for value in random.integers(0, 40, 2))
            box = [float(value) for value in (x, y, 10, 10)]
            category = int(random.choice([5, 7]))
            objects.append(
                {
                    "bbox": box,
                    "image_id": image,
                    "category_id": category,
                    "difficult": int(random.random() < 0.3),
                }
            )
            for _ in range(random.integers(4)):
                moved = [float(side) for side in np.array(box) + random.integers(-2, 3, 4)]
                score = float(random.integers(1, 6)) / 8
                found.append(_found(moved, score, image_id=image, category_id=category))
    return _tree(*objects), found


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_rule_in_exact_fractions(seed: int) -> None:
    """Of boxes that include their last pixel, at every threshold."""
    tree, predictions = _random_case(seed)

    def pixels(box: list[float]) -> list[int]:
        x, y, width, height = (int(side) for side in box)
        return [x + 1, y + 1, x + width, y + height]

    eleven, area = voc_precision(tree, predictions)
    for row, category in enumerate((5, 7)):
        objects = [
            (entry["image_id"], pixels(entry["bbox"]), entry["difficult"])
            for entry in tree["annotations"]
            if entry["category_id"] == category
        ]
        found = [
            (entry["image_id"], pixels(entry["bbox"]), entry["score"])
            for entry in predictions
            if entry["category_id"] == category
        ]
        for column, percent in enumerate(range(50, 100, 5)):
            expected = average_precision(objects, found, Fraction(percent, 100))
            values = eleven[row, column], area[row, column]
            assert values == pytest.approx([float(value) for value in expected], abs=1e-12)
    assert 0 < np.nanmin(eleven[:, 0]) < np.nanmax(eleven) < 1


def _detectron2_case(seed: int) -> tuple[Tree, list[dict[str, Any]]]:
    """Rounded as detectron2 writes them: distinct scores, boxes that meet no threshold exactly.

    The numbers of objects that count are not multiples of 5, whose recalls it rounds.
    """
    random = np.random.default_rng(seed)
    tree, _ = _random_case(seed)
    for category in (5, 7):
        own = [entry for entry in tree["annotations"] if entry["category_id"] == category]
        for entry in own:
            entry["difficult"] = 0
        for entry in own[: len(own) - 4]:
            entry["difficult"] = 1
    scores = iter(random.permutation(900) / 1000)
    predictions = []
    for entry in tree["annotations"]:
        for _ in range(random.integers(5)):
            x0, y0, width, height = np.array(entry["bbox"]) + random.normal(0, 0.8, 4)
            x1, y1 = x0 + width, y0 + height
            x0, y0, x1, y1 = (round(float(side), 1) for side in (x0, y0, x1, y1))
            predictions.append(
                {
                    **{key: entry[key] for key in ("image_id", "category_id")},
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(next(scores)),
                }
            )
    return tree, predictions


@pytest.mark.detectron2
@pytest.mark.parametrize("seed", range(3))
def test_detectron2_s_evaluator_has_the_same_numbers(seed: int, tmp_path: Path) -> None:
    """Its AP, AP50 and AP75 on VOC2007 all are of eleven recalls; on VOC2012, areas."""
    import torch
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    from benchmarks.voc_rendering import render_voc
    from detection.coco.sets import CocoSet

    tree, predictions = _detectron2_case(seed)
    for image in tree["images"]:
        image["file_name"] = f"{image['id']}.jpg"
        (tmp_path / image["file_name"]).write_bytes(b"never opened")
    render_voc(CocoSet(tmp_path / "a.json", tmp_path, tree), tmp_path / "kit", "2007/test")
    metrics = with_voc_metrics(evaluate_in_detail(tree, [], ["bbox"]), tree, predictions).metrics
    for year, kind in ((2007, "voc"), (2012, "voc_area")):
        name = f"rendered_{seed}_{year}"
        register_pascal_voc(name, str(tmp_path / "kit/VOC2007"), "test", year, ("a", "b"))
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        for image in tree["images"]:
            own = [entry for entry in predictions if entry["image_id"] == image["id"]]
            boxes = torch.tensor([entry["bbox"] for entry in own], dtype=torch.float64)
            boxes[:, 2:] += boxes[:, :2]
            found = Instances((100, 100))
            found.pred_boxes = Boxes(boxes)
            found.scores = torch.tensor([entry["score"] for entry in own])
            found.pred_classes = torch.tensor([int(entry["category_id"] == 7) for entry in own])
            evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
        theirs = evaluator.evaluate()["bbox"]
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)
        ours = {metric: metrics[f"{kind}_{metric}"] for metric in theirs}
        assert ours == pytest.approx(theirs, abs=1e-9)
        assert 0 < theirs["AP75"] < theirs["AP50"] < 100


@pytest.mark.detectron2
def test_detectron2_differs_where_it_is_said_to() -> None:
    """An IoU at the threshold is not enough, and 3 of 10 objects do not reach recall 0.3."""
    from detectron2.evaluation.pascal_voc_evaluation import voc_ap

    recall, precision = np.arange(1, 4) / 10, np.ones(3)
    assert voc_ap(recall, precision, use_07_metric=True) == pytest.approx(3 / 11)
    assert eleven_point_ap(precision, 10) == pytest.approx(4 / 11)
    assert voc_ap(recall, precision) == pytest.approx(area_ap(precision, 10))
    assert VOC_IOUS.tolist() == [number / 100.0 for number in range(50, 100, 5)]
