import contextlib
import importlib.util
import io
import logging
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval
from random_coco import moved_objects, random_set

from detection.coco import precision as coco_precision
from detection.coco.evaluation import METRICS, evaluate_in_detail, with_areas
from detection.coco.precision import (
    CocoEvaluator,
    by_faster_coco_eval,
    by_pycocotools,
    evaluator,
    precision,
)
from detection.coco.sets import indexed
from rsa_pretrain.plumbing.errors import UserError

Entry = dict[str, Any]

needs_faster_coco_eval = pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None,
    reason="faster-coco-eval is not installed",
)
EVALUATORS = [by_pycocotools, pytest.param(by_faster_coco_eval, marks=needs_faster_coco_eval)]
# pycocotools' precision where the first detection is right and the second is not.
BEFORE_1 = 1 - 2.0**-52


def _by(
    run: CocoEvaluator, patch: pytest.MonkeyPatch, tree: Entry, predictions: list[Entry], *rest: Any
) -> NDArray[np.float64]:
    patch.setattr(coco_precision, "evaluator", lambda: run)
    return precision(with_areas(tree), predictions, *rest)


def _summarized(tree: Entry, predictions: list[Entry], iou_type: str) -> dict[str, float]:
    """Let pycocotools itself compute the metrics that have objects."""
    key = {"bbox": "segmentation", "segm": "bbox"}[iou_type]
    truth = indexed(with_areas(tree))
    entries = [{k: entry[k] for k in entry if k != key} for entry in predictions]
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(entries) if entries else indexed({**truth.dataset, "annotations": []})
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = zip(METRICS, evaluation.stats[:6], strict=True)
    return {f"{iou_type}_{name}": 100 * float(value) for name, value in numbers if value != -1}


@needs_faster_coco_eval
@pytest.mark.parametrize("limit", [100, 250])
@pytest.mark.parametrize("seed", range(4))
def test_both_evaluators_agree_to_the_last_bit(
    seed: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every overlap, recall, category and size, of boxes and of masks."""
    tree, predictions = random_set(seed)
    for iou_type in ("bbox", "segm"):
        ours, theirs = (
            _by(run, monkeypatch, tree, predictions, iou_type, limit)
            for run in (by_faster_coco_eval, by_pycocotools)
        )
        assert ours.shape == (10, 101, 4, 4)
        assert np.array_equal(ours, theirs)
        assert len(np.unique(ours)) > 20


@pytest.mark.parametrize("run", EVALUATORS)
@pytest.mark.parametrize("case", ["all", "small ones alone", "nothing found"])
@pytest.mark.parametrize("seed", [10, 11])
def test_metrics_are_those_of_pycocotools(
    seed: int, case: str, run: CocoEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a bit differs from its summary, also without objects of a size or any detection."""
    tree, predictions = random_set(seed)
    if case == "small ones alone":
        tree["annotations"] = [entry for entry in tree["annotations"] if entry["area"] < 1024]
    if case == "nothing found":
        predictions = []
    expected = {}
    for iou_type in ("bbox", "segm"):
        expected |= _summarized(tree, predictions, iou_type)
    monkeypatch.setattr(coco_precision, "evaluator", lambda: run)
    found = evaluate_in_detail(tree, predictions)
    assert found.metrics == expected
    assert len(expected) == (8 if case == "small ones alone" else 12)
    assert found.by_category[3]["bbox_AP"] is None


@pytest.mark.parametrize("run", EVALUATORS)
@pytest.mark.parametrize("num_objects", [1, 2, 3, 99, 100, 101, 1000])
@pytest.mark.parametrize(("num_right", "expected"), [(1, BEFORE_1), (2, 1.0)])
def test_the_rounding_of_a_first_detection(
    num_right: int,
    expected: float,
    num_objects: int,
    run: CocoEvaluator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One right before a wrong one falls a bit short of 1, two right ones do not, however many."""
    boxes = [[30.0 * column, 0.0, 20.0, 20.0] for column in range(max(num_objects, num_right))]
    found = [*boxes[:num_right], [0.0, 70.0, 20.0, 20.0]]
    tree = {
        "images": [{"id": 1, "width": 30_000, "height": 100}],
        "categories": [{"id": 1, "name": "one"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
    }
    predictions = [
        {"image_id": 1, "category_id": 1, "score": 1 - place / 10, "bbox": box}
        for place, box in enumerate(found)
    ]
    values = _by(run, monkeypatch, tree, predictions, "bbox", 100)
    assert values[0, 0, 0, 0] == expected


@pytest.mark.parametrize("run", EVALUATORS)
def test_neither_foreign_keys_nor_large_ids_matter(
    run: CocoEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids beyond float64 stay apart, and an evaluator's private keys in a file do nothing."""
    tree, predictions = random_set(20)
    expected = _by(run, monkeypatch, tree, predictions, "bbox", 100)
    for entries in (tree["images"], tree["categories"]):
        for entry in entries:
            entry["id"] += 2**60
    for entry in [*tree["annotations"], *predictions]:
        entry["image_id"] += 2**60
        entry["category_id"] += 2**60
        entry |= {"is_crowd": 1, "ignore": 1, "lvis_mark": True, "drop": True, "rle": {}}
        entry |= {"caption": "a thing", "keypoints": []}
    assert np.array_equal(_by(run, monkeypatch, tree, predictions, "bbox", 100), expected)


@pytest.mark.parametrize("run", EVALUATORS)
def test_a_limit_beyond_every_count_is_no_limit(
    run: CocoEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large, it costs nothing and overflows nowhere; an image has less than 300 here."""
    tree, predictions = random_set(30)
    plenty, beyond = (
        _by(run, monkeypatch, tree, predictions, "bbox", limit) for limit in (300, 10**30)
    )
    assert np.array_equal(plenty, beyond)
    assert not np.array_equal(plenty, _by(run, monkeypatch, tree, predictions, "bbox", 100))


@needs_faster_coco_eval
def test_faster_coco_eval_says_nothing(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its progress reaches neither the command's output nor its log."""
    caplog.set_level(logging.INFO)
    _by(by_faster_coco_eval, monkeypatch, *random_set(0), "segm", 100)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_the_evaluator_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """faster-coco-eval where it is found, or pycocotools."""
    found: list[ModuleSpec | None] = [None, ModuleSpec("faster_coco_eval", None)]
    monkeypatch.setattr(coco_precision, "find_spec", lambda name: found.pop())
    assert evaluator() is by_faster_coco_eval
    assert evaluator() is by_pycocotools


def test_a_broken_installation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with both ways out, and not passed over."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match=r"is installed and cannot be imported .*, or uninstall it"):
        _by(by_faster_coco_eval, monkeypatch, *random_set(0), "bbox", 100)


@needs_faster_coco_eval
@pytest.mark.real_data
@pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set")
def test_both_evaluators_agree_on_real_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's polygons and crowds against themselves, moved and shuffled."""
    tree, predictions = moved_objects(Path(os.environ["RSA_DATA"]) / "coco_mini", seed=0)
    for iou_type in ("bbox", "segm"):
        ours, theirs = (
            _by(run, monkeypatch, tree, predictions, iou_type, 100)
            for run in (by_faster_coco_eval, by_pycocotools)
        )
        assert np.array_equal(ours, theirs)
        assert 0.05 < ours[ours >= 0].mean() < 0.95
