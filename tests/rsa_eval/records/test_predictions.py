import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsa_eval.campaigns.run_records import make_record_of
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.detection_predictions import DetectionPredictions
from rsa_eval.records.predictions import (
    Predictions,
    decode_predictions,
    encode_predictions,
    file_of,
    read_predictions,
)
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_eval.records.record import PredictionsFile, Record
from rsa_eval.statistics.detection_matches import DetectionMatches
from rsa_eval.statistics.intervals import wilson
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

KEYS = ["a/1.jpg", "a/2.jpg", "b/ü\n.jpg", "b/\udcff.jpg"]


def of_classes() -> ClassPredictions:
    """Two draws of one subset and one of another, four images of three classes."""
    return ClassPredictions(
        labels=np.array([0, 0, 1, 2]),
        predicted=np.array([[0, 0, 1, 1], [0, 1, 1, 1], [2, 2, 2, 2]]),
        ranks=np.array([[0, 0, 0, 1], [0, 1, 0, 7], [2, 300, 5, 0]]),
        names=("1pct", "1pct", "2per_class"),
        num_classes=3,
    )


def of_rankings() -> RankingPredictions:
    """Two classes, an ignored image and a tie."""
    scores = np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.3], [0.6, 0.2]])
    return RankingPredictions(scores, np.array([[1, -1], [-1, 1], [1, 1], [0, -1]], np.int8))


def of_detections() -> DetectionPredictions:
    """Two detections, one right at every overlap, on four images with an object in two of them."""
    flags = np.array([[255] * 5, [0] * 5], np.uint8)
    matches = DetectionMatches(
        num_images=4,
        num_categories=1,
        images=np.array([0, 1], np.int32),
        categories=np.zeros(2, np.int32),
        scores=np.array([0.9, 0.8]),
        matched=flags,
        ignored=np.zeros_like(flags),
        object_images=np.array([0, 2], np.int32),
        object_categories=np.zeros(2, np.int32),
        num_objects=np.array([[1, 1, 0, 0]] * 2, np.int32),
    )
    return DetectionPredictions.of({"bbox": matches})


ALL: list[Callable[[], Predictions]] = [of_classes, of_rankings, of_detections]


@pytest.mark.parametrize("make", ALL)
def test_round_trip(make: Callable[[], Predictions]) -> None:
    """Answers and names of images, odd ones too, are read as written; equal ones give one file."""
    kept = make()
    content = encode_predictions(KEYS, kept)
    assert content == encode_predictions(KEYS, make())
    found = decode_predictions(content)
    assert found.keys == tuple(KEYS)
    assert found.predictions.num_images == 4
    for name, array in kept.arrays().items():
        np.testing.assert_array_equal(found.predictions.arrays()[name], array)


def test_accuracies_by_hand() -> None:
    """Draws of a subset are averaged; a class counts once in the mean per class."""
    kept = of_classes()
    assert kept.value("top1_1pct") == pytest.approx(100 * (3 + 2) / 8)
    assert kept.value("top5_1pct") == pytest.approx(100 * (4 + 3) / 8)
    assert kept.value("mean_per_class_1pct") == pytest.approx((75 + 100 + 0) / 3)
    assert kept.value("top1_2per_class") == 25
    assert (kept.value("top1"), kept.value("rankme"), kept.value("top1_std")) == (None,) * 3
    np.testing.assert_array_equal(kept.per_image("top1_1pct"), [100, 50, 100, 0])
    assert kept.per_image("mean_per_class_1pct") is None


def test_intervals_of_accuracies() -> None:
    """Wilson's for a single classifier; for several a bootstrap, which never has width 0."""
    kept = of_classes()
    assert kept.interval("top1_2per_class") == (wilson(1, 4), "Wilson")
    found = kept.interval("top1_1pct")
    assert found is not None
    assert found[1] == "bootstrap over images"
    assert found[0].low < 62.5 < found[0].high
    assert kept.interval("rankme") is None
    alike = ClassPredictions(
        np.zeros(20, int), np.zeros((2, 20), int), np.zeros((2, 20), int), ("", ""), 2
    )
    found = alike.interval("top1")
    assert found is not None
    assert found[0].low < 95 < found[0].high <= 100


def test_average_precision_by_hand() -> None:
    """Class 0 ranks right, wrong, right; class 1 right, wrong, and the tie of right and wrong."""
    kept = of_rankings()
    # Class 0: 1/1 and 2/3. Class 1: 1/1, then both tied images at once: 2/4.
    expected = 100 * ((1 + 2 / 3) / 2 + (1 + 2 / 4) / 2) / 2
    assert kept.value("mAP") == pytest.approx(expected)
    assert (kept.value("top1"), kept.interval("top1"), kept.per_image("mAP")) == (None,) * 3
    found = kept.interval("mAP_11_points")
    assert found is not None
    assert 0 <= found[0].low < found[0].high <= 100


def test_detections_by_hand() -> None:
    """One of two objects is found before the wrong detection: precision 1 up to recall 0.5."""
    kept = of_detections()
    assert kept.value("bbox_AP") == pytest.approx(100 * 51 / 101)
    assert kept.value("bbox_APl") is None
    assert kept.value("segm_AP") is None
    assert kept.interval("bbox_APl") is None
    replicates = kept.replicates([kept, kept], "bbox_AP")
    assert replicates.shape == (1000, 2)
    np.testing.assert_array_equal(replicates[:, 0], replicates[:, 1])
    found = kept.interval("bbox_AP")
    assert found is not None
    assert (found[0].low, found[0].high) == (0, 100)


@pytest.mark.parametrize("num_images", [1, 50])
@pytest.mark.parametrize("value", [0.0, 100.0])
def test_images_that_all_agree_leave_the_interval_open(num_images: int, value: float) -> None:
    """Accuracy by class and average precision, all right or all wrong."""
    reach = 100 * (1 - 0.05 ** (1 / num_images))
    bounds = (0, reach) if value == 0 else (100 - reach, 100)
    is_right = value == 100
    labels = np.zeros(num_images, int)
    ranks = np.full((1, num_images), 0 if is_right else 9)
    rows = np.arange(num_images, dtype=np.int32)
    ones = np.ones(num_images, np.int32)
    flags = np.full((num_images, 5), 255 if is_right else 0, np.uint8)
    matches = DetectionMatches(
        num_images=num_images,
        num_categories=1,
        images=rows,
        categories=0 * rows,
        scores=1.0 * ones,
        matched=flags,
        ignored=0 * flags,
        object_images=rows,
        object_categories=0 * rows,
        num_objects=np.stack([ones, ones, 0 * ones, 0 * ones], axis=1),
    )
    answers: list[tuple[Predictions, str]] = [
        (ClassPredictions(labels, ranks, ranks, ("",), 10), "mean_per_class"),
        (DetectionPredictions.of({"bbox": matches}), "bbox_AP"),
    ]
    if is_right:  # images without the class are ranked by no precision of 0
        truth = np.ones((num_images, 1), np.int8)
        answers.append((RankingPredictions(1.0 * truth, truth), "mAP"))
    for kept, metric in answers:
        assert kept.value(metric) == pytest.approx(value)
        found = kept.interval(metric)
        assert found is not None
        assert (found[0].low, found[0].high) == pytest.approx(bounds)


def _config(knn_config: KNNConfig, kind: str) -> Any:
    changes: dict[str, Any] = {
        "knn": {"settings": [{"k": 3, "temperature": 0.1}, {"k": 1, "temperature": None}]},
        "linear": {"probe": {"mode": "cached", "epochs": 2, "milestones": []}},
        "logistic": {"search": {"num_values": 2, "held_out_percent": 20}},
        "low-shot": {"subsets": [{"per_class": 2}, {"percent": 50}], "subset_seeds": [0, 1]},
        "finetune": {"tuning": {"epochs": 1, "milestones": []}, "subset": {"per_class": 2}},
        "svm": {"machine": {"costs": [0.1], "folds": 2}},
        "diagnostics": {"embedding": {"method": "pca"}},
    }[kind]
    tree = {"data": to_tree(knn_config.data), "device": "cpu"} | changes
    return parse_tree(EVALUATORS[kind].config, tree, "test")


# Robustness needs shifted images and has metrics that no answers give, segmentation needs masks;
# their own tests read both.
@pytest.mark.parametrize("kind", sorted(EVALUATORS.keys() - {"robustness", "segmentation"}))
def test_every_evaluator_keeps_its_answers(
    run_folder: Path, workspace: Workspace, knn_config: KNNConfig, kind: str
) -> None:
    """The kept answers give the record's metrics to the last digit, with intervals around them."""
    config = _config(knn_config, kind)
    record = make_record_of(run_folder, EVALUATORS[kind], config, workspace.record)
    kept = read_predictions(workspace.record, record)
    assert list(kept.keys) == open_images(config.data, "test").keys()
    found = {name: kept.predictions.value(name) for name in record.metrics}
    if kind == "diagnostics":
        assert set(found.values()) == {None}
        vote = kept.predictions.value("top1_vote")
        assert vote == pytest.approx(record.details["vote_top1"])
        return
    for name, metric in record.metrics.items():
        assert found[name] == pytest.approx(metric.value, abs=1e-9)
        assert metric.interval is not None
        assert metric.interval.low <= metric.value <= metric.interval.high
        assert metric.interval.low < metric.interval.high


def test_refused_files(tmp_path: Path, make_result: Callable[..., Record]) -> None:
    """A missing, changed or damaged file, or none at all, is one error that says what to do."""
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json' has no predictions by image: .* again"):
        read_predictions(path, make_result())
    entry, content = file_of(KEYS, of_classes(), path)
    record = make_result(predictions=entry)
    with pytest.raises(UserError, match=r"cannot read .*a\.predictions\.npz', .*: No such file"):
        read_predictions(path, record)
    file = tmp_path / entry.file
    file.write_bytes(content)
    assert read_predictions(path, record).keys == tuple(KEYS)
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"another SHA-256 than 'a\.json' states"):
        read_predictions(path, record)


def _of(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _names(keys: object) -> Any:
    return np.frombuffer(json.dumps(keys).encode(), np.uint8)


GOOD = {"form": np.array("classes"), "keys": _names(KEYS), **of_classes().arrays()}
DAMAGE: dict[str, tuple[Any, str]] = {
    "no archive": (b"nothing", "no file of predictions"),
    "empty": (b"", "no file of predictions"),
    "no form": ({key: GOOD[key] for key in GOOD if key != "form"}, "no file of predictions"),
    "unknown form": (GOOD | {"form": np.array("odd")}, "no file of predictions .*odd"),
    "no labels": ({key: GOOD[key] for key in GOOD if key != "labels"}, "lack 'labels'"),
    "two numbers of classes": (GOOD | {"num_classes": np.array([3, 3])}, "number of classes"),
    "pickled": (GOOD | {"labels": np.array([{}], object)}, "pickle|Object"),
    "too few names": (GOOD | {"keys": _names(KEYS[:2])}, "names 2 images and answers 4"),
    "no list": (GOOD | {"keys": _names(7)}, "names of images"),
    "no JSON": (GOOD | {"keys": np.zeros(3, np.uint8)}, "names of images"),
    "other shape": (GOOD | {"ranks": np.zeros((3, 5), np.uint8)}, "shapes"),
    "fractions": (GOOD | {"ranks": np.zeros((3, 4))}, "whole numbers"),
    "negative ranks": (GOOD | {"ranks": np.full((3, 4), -1)}, "whole numbers from 0 on"),
    "unknown class": (GOOD | {"labels": np.full(4, 7, np.uint8)}, "class 7 of 3"),
    "odd truth": (
        {
            "form": np.array("rankings"),
            "keys": _names(KEYS[:1]),
            "scores": np.zeros((1, 1)),
            "truth": np.full((1, 1), 5, np.int8),
        },
        "other values than -1, 0 and 1",
    ),
    "rankings": (
        GOOD | {"form": np.array("rankings"), "scores": np.zeros(3), "truth": np.zeros(3)},
        "scores have shape",
    ),
    "detections": (GOOD | {"form": np.array("detections")}, "lack 'metrics'"),
    "no matches": (
        GOOD
        | {"form": np.array("detections"), "metrics": np.array(["bbox_AP"])}
        | {"replicates": np.zeros((1, 1000), np.float32)},
        r"replicates are of \['bbox_AP'\], expected \[\]",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_content(tmp_path: Path, make_result: Callable[..., Record], case: str) -> None:
    """Whatever is in the file that a record names, the answer is one error."""
    content, message = DAMAGE[case]
    content = content if isinstance(content, bytes) else _of(content)
    entry = PredictionsFile(file="a.npz", sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.npz' cannot be used: .*({message})"):
        read_predictions(tmp_path / "a.json", make_result(predictions=entry))


def test_a_small_file_cannot_claim_the_memory() -> None:
    """An archive that unpacks to more than 4 GiB is refused before it is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("labels.npy", b"x")
        archive.infolist()[0].file_size = 2**33
    with pytest.raises(ValueError, match=r"unpacks to 8,589,934,592 bytes"):
        decode_predictions(buffer.getvalue())


HEADER = b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"


BROKEN = b"\x93NUMPY\x01\0v\0" + b"{'descr': (('<f8', 'a'), 'shape': (3,)".ljust(117) + b"\n"


@pytest.mark.parametrize("member", [b"raw", (HEADER % 10**14).ljust(127) + b"\n", BROKEN])
def test_a_member_that_is_no_array_is_refused(member: bytes) -> None:
    """And so is a header that claims more than there is memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("labels.npy", member)
    with pytest.raises(ValueError, match=r"no file of predictions|no arrays"):
        decode_predictions(buffer.getvalue())


@pytest.mark.parametrize("name", ["../a.npz", "/etc/passwd", "a\\b", "", "..", "a\0b"])
def test_a_record_names_a_file_beside_it(name: str) -> None:
    """No record can make the toolkit read elsewhere."""
    with pytest.raises(UserError, match="file"):
        parse_tree(PredictionsFile, {"file": name, "sha256": "0"}, "test")
