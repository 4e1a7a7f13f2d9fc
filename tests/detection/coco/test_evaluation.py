import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as mask_codec

from detection.__main__ import main
from detection.coco.evaluation import evaluate, evaluate_in_detail

SIZE = 100


def _encode(mask: NDArray[np.uint8]) -> dict[str, Any]:
    code = mask_codec.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode("ascii")}


def _rectangle(x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def _truth(*objects: tuple[list[float], NDArray[np.uint8]]) -> dict[str, Any]:
    """One image with these boxes and masks, of category 5."""
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": SIZE, "width": SIZE}],
        "categories": [{"id": 5, "name": "thing"}],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": 5,
                "iscrowd": 0,
                "bbox": box,
                "area": int(mask.sum()),
                "segmentation": _encode(mask),
            }
            for number, (box, mask) in enumerate(objects, start=1)
        ],
    }


def _found(box: list[float], mask: NDArray[np.uint8], score: float) -> dict[str, Any]:
    return {
        "image_id": 1,
        "category_id": 5,
        "score": score,
        "bbox": box,
        "segmentation": _encode(mask),
    }


BOX, MASK = [10.0, 10.0, 50.0, 50.0], _rectangle(10, 10, 50, 50)


def test_perfect_detections_score_100() -> None:
    """Boxes and masks as annotated give 100; sizes that do not occur are left out, not -1."""
    metrics = evaluate(_truth((BOX, MASK)), [_found(BOX, MASK, 0.9)])
    names = ("AP", "AP50", "AP75", "APm")
    expected = {f"{kind}_{name}": 100.0 for kind in ("bbox", "segm") for name in names}
    assert metrics == pytest.approx(expected)


def test_overlaps_by_hand() -> None:
    """A box of IoU 31/50 = .62 passes 3 of 10 thresholds, a mask of IoU 36/50 = .72 passes 5."""
    prediction = _found([10.0, 10.0, 50.0, 31.0], _rectangle(10, 10, 50, 36), 0.9)
    metrics = evaluate(_truth((BOX, MASK)), [prediction])
    assert metrics["bbox_AP"] == pytest.approx(30.0)
    assert metrics["segm_AP"] == pytest.approx(50.0)
    assert metrics["bbox_AP50"] == metrics["segm_AP50"] == pytest.approx(100.0)
    assert metrics["bbox_AP75"] == metrics["segm_AP75"] == 0.0


def test_precision_and_recall_by_hand() -> None:
    """A false detection before the one true of two objects: 51 of 101 recalls at precision 1/2."""
    other = ([70.0, 70.0, 20.0, 20.0], _rectangle(70, 70, 20, 20))
    wrong = ([70.0, 5.0, 20.0, 20.0], _rectangle(70, 5, 20, 20))
    metrics = evaluate(
        _truth((BOX, MASK), other), [_found(*wrong, score=0.95), _found(BOX, MASK, 0.9)]
    )
    assert metrics["bbox_AP"] == metrics["segm_AP"] == pytest.approx(100 * 51 / 101 / 2)


def test_mask_sizes_are_mask_areas() -> None:
    """A false thin diagonal, whose box is large, counts among the small masks."""
    thin = np.zeros((SIZE, SIZE), np.uint8)
    thin[np.arange(50), np.arange(50)] = 1
    small = ([60.0, 60.0, 20.0, 20.0], _rectangle(60, 60, 20, 20))
    predictions = [_found([0.0, 0.0, 50.0, 50.0], thin, 0.9), _found(*small, score=0.5)]
    metrics = evaluate(_truth(small), predictions)
    assert metrics["segm_APs"] == pytest.approx(50.0)
    assert metrics["bbox_APs"] == pytest.approx(100.0)


def test_no_detection_scores_0_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """An empty list is neither a crash nor NaN."""
    metrics = evaluate(_truth((BOX, MASK)), [])
    assert metrics["bbox_AP"] == metrics["segm_AP"] == metrics["segm_AP50"] == 0.0
    assert all(math.isfinite(value) for value in metrics.values())
    assert "found nothing" in caplog.text


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The tables of pycocotools stay away from the command's output."""
    evaluate(_truth((BOX, MASK)), [_found(BOX, MASK, 0.9)])
    assert capsys.readouterr().out == ""


def test_custom_sets_may_lack_area_and_iscrowd() -> None:
    """Both are filled in, since pycocotools demands them; the input is not changed."""
    tree = _truth((BOX, MASK))
    for key in ("area", "iscrowd"):
        del tree["annotations"][0][key]
    assert evaluate(tree, [_found(BOX, MASK, 0.9)])["segm_AP"] == pytest.approx(100.0)
    assert "area" not in tree["annotations"][0]


def test_ap_by_category_by_hand() -> None:
    """Boxes of IoU .62 (3 of 10 thresholds) and 1 in two categories: AP 30 and 100, mean 65."""
    tree = _truth((BOX, MASK), ([70.0, 70.0, 20.0, 20.0], _rectangle(70, 70, 20, 20)))
    tree["categories"] = [{"id": 9, "name": "b"}, {"id": 5, "name": "a"}, {"id": 7, "name": "c"}]
    tree["annotations"][1]["category_id"] = 9
    crowd = {**tree["annotations"][1], "id": 3, "iscrowd": 1, "bbox": [0.0, 90.0, 5.0, 5.0]}
    tree["annotations"].append(crowd)
    second = {
        **_found([70.0, 70.0, 20.0, 20.0], _rectangle(70, 70, 20, 20), 0.8),
        "category_id": 9,
    }
    first = _found([10.0, 10.0, 50.0, 31.0], _rectangle(10, 10, 50, 36), 0.9)
    evaluation = evaluate_in_detail(tree, [first, second])
    expected = [
        {"id": 5, "name": "a", "num_objects": 1, "bbox_AP": 30.0, "segm_AP": 50.0},
        {"id": 7, "name": "c", "num_objects": 0, "bbox_AP": None, "segm_AP": None},
        {"id": 9, "name": "b", "num_objects": 1, "bbox_AP": 100.0, "segm_AP": 100.0},
    ]
    assert evaluation.by_category == [pytest.approx(entry) for entry in expected]
    assert evaluation.metrics["bbox_AP"] == pytest.approx(65.0)
    assert evaluation.metrics["segm_AP"] == pytest.approx(75.0)


def test_one_kind_alone() -> None:
    """Boxes without masks are evaluated as boxes alone."""
    prediction = _found(BOX, MASK, 0.9)
    del prediction["segmentation"]
    evaluation = evaluate_in_detail(_truth((BOX, MASK)), [prediction], ["bbox"])
    assert {name.partition("_")[0] for name in evaluation.metrics} == {"bbox"}
    assert evaluation.by_category[0]["bbox_AP"] == pytest.approx(100.0)


def test_parts_that_are_no_polygons_do_not_reach_pycocotools() -> None:
    """A part of four coordinates, which pycocotools takes for a box, does not shift the mask."""
    tree = _truth((BOX, MASK))
    square = [10.0, 10.0, 60.0, 10.0, 60.0, 60.0, 10.0, 60.0]
    tree["annotations"][0]["segmentation"] = [[1.0, 1.0, 90.0, 90.0], square]
    assert evaluate(tree, [_found(BOX, MASK, 0.9)])["segm_AP"] == pytest.approx(100.0)


@pytest.mark.parametrize("first_id", [0, 1, 1000])
def test_annotation_ids_do_not_matter(first_id: int) -> None:
    """Perfect detections of four objects score 100 wherever the ids start; the input stays."""
    objects = [
        ([x, y, 20.0, 20.0], _rectangle(int(x), int(y), 20, 20))
        for x, y in ((5.0, 5.0), (35.0, 5.0), (5.0, 60.0), (60.0, 60.0))
    ]
    tree = _truth(*objects)
    ids = list(range(first_id, first_id + 4))
    for annotation, number in zip(tree["annotations"], ids, strict=True):
        annotation["id"] = number
    evaluation = evaluate_in_detail(tree, [_found(box, mask, 0.9) for box, mask in objects])
    assert evaluation.metrics["bbox_AP"] == evaluation.metrics["segm_AP"] == pytest.approx(100.0)
    assert evaluation.by_category[0]["bbox_AP"] == pytest.approx(100.0)
    assert [annotation["id"] for annotation in tree["annotations"]] == ids


def test_detections_that_do_not_count_are_noted() -> None:
    """Of a category without objects, and the 101st of an image and category: AP stays 100."""
    tree = _truth((BOX, MASK))
    tree["categories"].append({"id": 9, "name": "ghost"})
    right = _found(BOX, MASK, 0.9)
    predictions = [right] + [{**right, "score": 0.1}] * 102
    predictions += [{**right, "category_id": 9, "score": 0.99}] * 7
    evaluation = evaluate_in_detail(tree, predictions)
    assert evaluation.metrics["bbox_AP"] == pytest.approx(100.0)
    assert evaluation.notes == (
        "7 detections are not counted, as their categories have no object: ghost",
        "3 detections are not counted: they rank below the 100 highest scores of their image and "
        "category",
    )
    assert evaluate_in_detail(tree, [right]).notes == ()


def _row(count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of a category side by side on one image, all found with falling scores."""
    boxes = [[30.0 * column, 0.0, 20.0, 20.0] for column in range(count)]
    tree = {
        "images": [{"id": 1, "file_name": "1.png", "height": 20, "width": 30 * count}],
        "categories": [{"id": 5, "name": "cell"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 5, "bbox": box}
            for number, box in enumerate(boxes, start=1)
        ],
    }
    predictions = [
        {"image_id": 1, "category_id": 5, "score": 1 - place / 1000, "bbox": box}
        for place, box in enumerate(boxes)
    ]
    return tree, predictions


MORE = "average precision counts {} detections an image and category, where COCO's counts 100"
SURPLUS = (
    "{} detections are not counted: they rank below the {} highest scores of their image and "
    "category"
)


@pytest.mark.parametrize(
    ("limit", "num_recalls", "notes"),
    [
        (20, 51, [SURPLUS.format(100, 100)]),
        (100, 51, [SURPLUS.format(100, 100)]),
        (101, 51, [MORE.format(101), SURPLUS.format(99, 101)]),
        (150, 76, [MORE.format(150), SURPLUS.format(50, 150)]),
        (2000, 101, [MORE.format("2,000")]),
    ],
)
def test_more_detections_than_coco_counts(limit: int, num_recalls: int, notes: list[str]) -> None:
    """Of 200 objects that all are found, N count from 100 up: recall N/200 of 101, at precision 1.

    The sizes' numbers follow, and the notes say what counted.
    """
    tree, predictions = _row(200)
    evaluation = evaluate_in_detail(tree, predictions, ["bbox"], limit)
    assert list(evaluation.notes) == notes
    assert evaluation.metrics == evaluate(tree, predictions, ["bbox"], max_detections=limit)
    expected = pytest.approx(100 * num_recalls / 101)
    names = ("AP", "AP50", "AP75", "APs")
    assert evaluation.metrics == {f"bbox_{name}": expected for name in names}
    assert evaluation.by_category[0]["bbox_AP"] == expected


def test_the_command_counts_as_many_as_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """By default COCO's 100; fewer, which COCO's metrics do not know, are refused.

    What does not count is said.
    """
    words = ["evaluate"]
    for name, content in zip(("truth", "found"), _row(200), strict=True):
        words.append(str(tmp_path / f"{name}.json"))
        Path(words[-1]).write_text(json.dumps(content), encoding="utf-8")
    for more, ap in (([], "50.50"), (["--max-detections", "200"], "100.00")):
        assert main([*words, *more]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["bbox", ap]
    notes = [entry.message for entry in caplog.records if entry.name.endswith(".evaluate")]
    assert notes == [
        "100 detections are not counted: they rank below the 100 highest scores of their image and "
        "category",
        "average precision counts 200 detections an image and category, where COCO's counts 100",
    ]
    assert main([*words, "--max-detections", "20"]) == 2
    assert "--max-detections: expected 100 or more, found 20" in capsys.readouterr().err
