import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from random_coco import moved_objects, random_set

from detection.coco import precision as coco_precision
from detection.coco.evaluation import METRICS, evaluate
from detection.coco.matches import image_keys, matches_of
from detection.coco.precision import by_pycocotools
from rsa_eval.statistics.coco_precision import ap_replicates_coco
from rsa_eval.statistics.detection_matches import arrays, from_arrays

Entry = dict[str, Any]

IOU_TYPES = ("bbox", "segm")


@pytest.fixture(autouse=True)
def _pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with pycocotools, whatever is installed."""
    monkeypatch.setattr(coco_precision, "evaluator", lambda: by_pycocotools)


def _expected(
    tree: Entry, predictions: list[Entry], iou_type: str, limit: int = 100
) -> dict[str, float]:
    metrics = evaluate(tree, predictions, [iou_type], limit)
    return {name: metrics.get(f"{iou_type}_{name}", -1.0) for name in METRICS}


def _found(
    tree: Entry, predictions: list[Entry], iou_type: str, limit: int = 100
) -> dict[str, float]:
    matches = matches_of(tree, predictions, iou_type, limit)
    values = ap_replicates_coco(matches, np.ones((1, matches.num_images), int))
    return {name: float(value) for name, (value,) in values.items()}


def _with_copies(
    tree: Entry, predictions: list[Entry], counts: NDArray[np.int64]
) -> tuple[Entry, list[Entry]]:
    """Write every image as often as it counts, with following ids."""
    images: list[Entry] = []
    parts: dict[str, list[Entry]] = {"annotations": [], "predictions": []}
    originals = sorted(tree["images"], key=lambda image: int(image["id"]))
    for image, count in zip(originals, counts, strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append({**image, "id": number})
            for name, entries in (
                ("annotations", tree["annotations"]),
                ("predictions", predictions),
            ):
                own = [entry for entry in entries if entry["image_id"] == image["id"]]
                parts[name] += [{**entry, "image_id": number} for entry in own]
    for number, entry in enumerate(parts["annotations"], start=1):
        entry["id"] = number
    return {**tree, "images": images, "annotations": parts["annotations"]}, parts["predictions"]


def _without_ties(predictions: list[Entry], seed: int) -> list[Entry]:
    """Give each image's detections of a category other scores; images share them."""
    random = np.random.default_rng(seed)
    together = Counter((entry["image_id"], entry["category_id"]) for entry in predictions)
    scores = {key: iter(random.permutation(count + 5) / 512) for key, count in together.items()}
    return [
        {**entry, "score": float(next(scores[entry["image_id"], entry["category_id"]]))}
        for entry in predictions
    ]


@pytest.mark.parametrize("limit", [100, 250])
@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("seed", range(4))
def test_images_once_each_have_the_numbers_of_the_evaluation(
    seed: int, iou_type: str, limit: int
) -> None:
    """Not a bit differs: crowds, ties, more than a hundred detections, a category without objects.

    The same holds after the matches were stored.
    """
    tree, predictions = random_set(seed)
    expected = _expected(tree, predictions, iou_type, limit)
    assert _found(tree, predictions, iou_type, limit) == expected
    matches = from_arrays(arrays(matches_of(tree, predictions, iou_type, limit)))
    values = ap_replicates_coco(matches, np.ones((1, 5), int))
    assert {name: value[0] for name, value in values.items()} == expected
    assert len(set(expected.values())) == 6


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("seed", range(3))
def test_resamples_are_those_of_copied_images(seed: int, iou_type: str) -> None:
    """Equal to the last bit to data sets with images left out and doubled, and scores tied."""
    tree, predictions = random_set(seed)
    predictions = _without_ties(predictions, seed)
    shares = np.full(5, 1 / 5)
    counts = np.random.default_rng(seed).multinomial(5, shares, 4)
    found = ap_replicates_coco(matches_of(tree, predictions, iou_type), counts)
    for index, row in enumerate(counts):
        expected = _expected(*_with_copies(tree, predictions, row), iou_type)
        assert {name: values[index] for name, values in found.items()} == expected


def test_ties_within_an_image_keep_copies_of_a_detection_together() -> None:
    """A hit and a miss of equal score, twice: hit, hit, miss, miss, and precision 1 at any recall.

    pycocotools ranks hit, miss, hit, miss: 1 (less its rounding) to recall 1/2, and then 2/3.
    """
    box = [10.0, 10.0, 50.0, 50.0]
    tree = {
        "images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "one"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}],
    }
    predictions = [
        {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": place}
        for place in (box, [70.0, 70.0, 9.0, 9.0])
    ]
    counts = np.array([[2]])
    assert ap_replicates_coco(matches_of(tree, predictions, "bbox"), counts)["AP"] == 100
    theirs = _expected(*_with_copies(tree, predictions, counts[0]), "bbox")
    assert theirs["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("case", ["nothing found", "no objects", "small ones alone", "one image"])
def test_little_to_match(case: str, iou_type: str) -> None:
    """The numbers are those of the evaluation, -1 for sizes without objects."""
    tree, predictions = random_set(10)
    if case == "nothing found":
        predictions = []
    if case == "no objects":
        tree["annotations"] = []
    if case == "small ones alone":
        tree["annotations"] = [entry for entry in tree["annotations"] if entry["area"] < 1024]
    if case == "one image":
        tree, predictions = _with_copies(tree, predictions, np.array([0, 0, 1, 0, 0]))
    found = _found(tree, predictions, iou_type)
    assert found == _expected(tree, predictions, iou_type)
    assert (-1.0 in found.values()) == (case in ("no objects", "small ones alone"))


def test_matches_hold_what_pycocotools_ranks() -> None:
    """By category and falling score, at most a hundred per image and category."""
    tree, predictions = random_set(0)
    matches = matches_of(tree, predictions, "bbox")
    together = Counter((entry["image_id"], entry["category_id"]) for entry in predictions)
    assert len(matches.images) == sum(min(100, count) for count in together.values())
    assert max(together.values()) > 100
    objects = [entry for entry in tree["annotations"] if not entry["iscrowd"]]
    assert matches.num_objects[:, 0].sum() == len(objects)
    assert matches.num_objects[:, 1:].sum() == len(objects)
    ids = sorted(image["id"] for image in tree["images"])
    pairs = Counter((ids.index(entry["image_id"]), entry["category_id"]) for entry in objects)
    categories = sorted(category["id"] for category in tree["categories"])
    for image, category, counts in zip(
        matches.object_images, matches.object_categories, matches.num_objects, strict=True
    ):
        assert counts[0] == pairs.pop((image, categories[category]))
    assert not pairs


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The progress of pycocotools stays away from the command's output."""
    matches_of(*random_set(0), "bbox")
    assert capsys.readouterr().out == ""


def test_image_keys_are_in_the_order_of_ids() -> None:
    """Not in that of the file."""
    images = [{"id": number, "file_name": f"{number}.png"} for number in (9, 2, 30)]
    assert image_keys({"images": images}) == ["2.png", "9.png", "30.png"]


@pytest.mark.real_data
@pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set")
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_real_annotations(iou_type: str) -> None:
    """COCO's own, and a resample of its images, have the numbers of pycocotools."""
    tree, predictions = moved_objects(Path(os.environ["RSA_DATA"]) / "coco_mini", seed=0)
    predictions = _without_ties(predictions, 0)
    count = len(tree["images"])
    counts = np.ones((2, count), int)
    counts[1] = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count))
    found = ap_replicates_coco(matches_of(tree, predictions, iou_type), counts)
    for index, row in enumerate(counts):
        expected = _expected(*_with_copies(tree, predictions, row), iou_type)
        assert {name: values[index] for name, values in found.items()} == expected
    assert 5 < found["AP"][0] < 95
