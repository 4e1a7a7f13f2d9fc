"""Objects marked difficult are neither found nor missed, by COCO's rule, too."""

import contextlib
import importlib.util
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from random_coco import random_set

from detection.coco import precision as coco_precision
from detection.coco.counted_objects import is_difficult
from detection.coco.evaluation import METRICS, evaluate, evaluate_in_detail, with_areas
from detection.coco.matches import matches_of
from detection.coco.matching import match
from detection.coco.precision import CocoEvaluator, by_faster_coco_eval, by_pycocotools, prepare
from detection.coco.repair import repair
from detection.coco.sets import CocoSet, check_objects, training_images
from rsa_eval.statistics.coco_precision import ap_replicates_coco
from rsa_pretrain.plumbing.errors import UserError

Entry = dict[str, Any]

needs_faster_coco_eval = pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None,
    reason="faster-coco-eval is not installed",
)
EVALUATORS = [by_pycocotools, pytest.param(by_faster_coco_eval, marks=needs_faster_coco_eval)]
BOX, FAR, INSIDE = [10.0, 10.0, 20.0, 20.0], [50.0, 50.0, 40.0, 40.0], [60.0, 60.0, 10.0, 10.0]


def _tree(**of_far: Any) -> Entry:
    """One image with an object at BOX and, marked, one at FAR."""
    common = {"image_id": 1, "category_id": 5}
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": 100, "width": 100}],
        "categories": [{"id": 5, "name": "a"}, {"id": 7, "name": "b"}],
        "annotations": [
            {"id": 1, "bbox": BOX, **common},
            {"id": 2, "bbox": FAR, **common, **of_far},
        ],
    }


def _found(box: list[float], score: float) -> Entry:
    return {"image_id": 1, "category_id": 5, "bbox": box, "score": score}


@pytest.fixture(params=EVALUATORS)
def _by_each(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    run: CocoEvaluator = request.param
    monkeypatch.setattr(coco_precision, "evaluator", lambda: run)


@pytest.mark.usefixtures("_by_each")
@pytest.mark.parametrize(
    ("boxes", "of_far", "expected"),
    [
        ([BOX], {"difficult": 1}, 100.0),
        ([BOX], {}, 100 * 51 / 101),
        ([FAR, BOX], {"difficult": 1}, 100.0),
        # One detection is taken by it, a second one is wrong: 1/2 at every recall.
        ([FAR, FAR, BOX], {"difficult": 1}, 50.0),
        ([FAR, FAR, BOX], {"iscrowd": 1}, 100.0),
        # The IoU is 100 / 1600; a crowd's, over the detection alone, would be 1.
        ([INSIDE, BOX], {"difficult": 1}, 50.0),
        ([INSIDE, BOX], {"iscrowd": 1}, 100.0),
        ([INSIDE, BOX], {"iscrowd": 1, "difficult": 1}, 100.0),
    ],
)
def test_by_hand(boxes: list[list[float]], of_far: Entry, expected: float) -> None:
    """Detections by falling score; AP is the same at every overlap."""
    predictions = [_found(box, 0.9 - 0.1 * place) for place, box in enumerate(boxes)]
    found = evaluate_in_detail(_tree(**of_far), predictions, ["bbox"])
    assert found.metrics["bbox_AP"] == pytest.approx(expected)
    assert found.by_category[0]["num_objects"] == (1 if of_far else 2)
    kept = matches_of(_tree(**of_far), predictions, "bbox")
    replicates = ap_replicates_coco(kept, np.ones((1, 1), int))
    assert replicates["AP"][0] == pytest.approx(expected)


@pytest.mark.usefixtures("_by_each")
def test_an_object_that_counts_comes_first() -> None:
    """A detection takes it even if its IoU with the difficult one is higher."""
    tree = _tree(bbox=[10.0, 10.0, 20.0, 16.0], difficult=1)
    found = [_found([10.0, 10.0, 20.0, 17.0], 0.9)]
    assert evaluate(tree, found, ["bbox"])["bbox_AP50"] == pytest.approx(100.0)
    assert match(tree["annotations"], found) == [0]
    assert match(tree["annotations"], [*found, found[0]]) == [0, 1]


def test_it_is_said() -> None:
    """The number of difficult objects is a note; detections of a class of such ones, another."""
    tree = _tree(category_id=7, difficult=True)
    predictions = [{**_found(FAR, 0.9), "category_id": 7}, _found(BOX, 0.9)]
    found = evaluate_in_detail(tree, predictions, ["bbox"])
    assert found.notes == (
        "1 objects marked difficult count as neither found nor missed, by PASCAL VOC's rule",
        "1 detections are not counted, as their categories have no object: b",
    )
    assert [entry["num_objects"] for entry in found.by_category] == [1, 0]
    assert found.by_category[1]["bbox_AP"] is None


@pytest.mark.parametrize(
    ("mark", "is_one", "is_noted"),
    [
        *((1, True, False), (0, False, False), (True, True, True), ("1", True, True)),
        *(("true", True, True), ("0", False, True), (None, False, True)),
    ],
)
def test_the_mark_may_be_text(mark: object, is_one: bool, is_noted: bool) -> None:
    """As other tools write it; reading makes a whole number of it, and says so."""
    tree, notes = repair(_tree(difficult=mark), None)
    assert [is_difficult(entry) for entry in tree["annotations"]] == [False, is_one]
    assert not is_difficult(tree["annotations"][1] | {"iscrowd": 1})
    (note,) = [line for line in notes if "annotations.difficult" in line] or [None]
    expected = "1 values of annotations.difficult are text, decimals, missing or true and false, "
    assert note == (f"{expected}read as 0 and 1" if is_noted else None)


def test_they_are_trained_on(tmp_path: Any) -> None:
    """As by detectron2's reader of VOC; alone they cannot be evaluated."""
    tree = _tree(difficult=1)
    (image,) = training_images(CocoSet(tmp_path / "a.json", tmp_path, tree))
    assert [entry["bbox"] for entry in image.annotations] == [BOX, FAR]
    for entry in tree["annotations"]:
        entry["difficult"] = 1
    with pytest.raises(UserError, match="has no object"):
        check_objects(tmp_path / "a.json", tree)


class _IgnoringEval(COCOeval):  # type: ignore[misc]
    """pycocotools, told to ignore what a set of ids names."""

    ignored: frozenset[int] = frozenset()

    def _prepare(self) -> None:
        super()._prepare()
        for entries in self._gts.values():
            for entry in entries:
                entry["ignore"] = entry["iscrowd"] or entry["id"] in self.ignored


@pytest.mark.usefixtures("_by_each")
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(2))
def test_it_is_pycocotools_own_ignoring(seed: int, iou_type: str) -> None:
    """To the last bit, with crowds, ties and masks, and so are the matches for intervals."""
    tree, predictions = random_set(seed)
    plain = evaluate(tree, predictions, [iou_type])
    prepared = prepare(with_areas(tree), predictions, iou_type, 100)
    random = np.random.default_rng(seed)
    for entry in tree["annotations"]:
        entry["difficult"] = int(random.random() < 0.3)
    found = evaluate(tree, predictions, [iou_type])

    evaluation = _IgnoringEval(*prepared[:3])
    evaluation.ignored = frozenset(
        number for number, entry in enumerate(tree["annotations"], start=1) if entry["difficult"]
    )
    evaluation.params.maxDets = [1, 10, 100]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = dict(zip(METRICS, evaluation.stats[:6], strict=True))
    assert found == {f"{iou_type}_{name}": 100 * float(expected[name]) for name in METRICS}
    assert found != plain
    kept = ap_replicates_coco(matches_of(tree, predictions, iou_type), np.ones((1, 5), int))
    assert {f"{iou_type}_{name}": float(values[0]) for name, values in kept.items()} == found
