"""Logistic regression for images with several classes, against scikit-learn class by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from resampling import voc_average_precision
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rsa_eval.__main__ import main
from rsa_eval.config import result_settings
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.logistic import multi_label
from rsa_eval.evaluators.logistic.deviations import logistic_deviations
from rsa_eval.evaluators.logistic.multi_label import multi_label_regression
from rsa_eval.evaluators.logistic.settings import LogisticConfig, SearchConfig
from rsa_eval.evaluators.shared.average_precision import ranking_scores
from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.features.extract import stored_features
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_eval.records.record import Scores, read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

Images = tuple[Tensor, Truth]

NAMES = ["a", "b", "c"]
SEARCH = SearchConfig(min_exponent=-3, max_exponent=2, num_values=6, tolerance=1e-9)
VALIDATION = np.arange(0, 60, 3)


def _images(seed: int, count: int = 60, width: int = 8) -> Images:
    """Three classes that may come together; some images are left out of two of them."""
    generator = np.random.default_rng(seed)
    truth = np.where(generator.random((count, 3)) < 0.4, 1, -1).astype(np.int8)
    features = generator.normal(size=(count, width))
    features[:, :3] += 0.7 * truth
    truth[::9, 0] = truth[1::7, 2] = 0
    return torch.from_numpy(features).float(), truth


def _score(train: Images, test: Images, **changes: Any) -> Scores:
    options = {"search": SEARCH, "validation": VALIDATION} | changes
    return multi_label_regression(train, test, NAMES, **options)


def _oracle(train: Images, test: Images, c: float) -> npt.NDArray[np.float64]:
    """Return the scores of one estimator a class, on the images not left out of it, (N, C)."""
    features, truth = train
    columns = []
    for own in truth.T:
        known = own != 0
        estimator = LogisticRegression(C=c, tol=1e-10, max_iter=10_000)
        estimator.fit(features.double().numpy()[known], own[known])
        columns.append(estimator.decision_function(test[0].double().numpy()))
    return np.stack(columns, axis=1)


def _eleven_points(scores: npt.NDArray[np.float64], truth: Truth) -> float:
    values = [
        voc_average_precision(column[own != 0], own[own != 0] == 1, True)
        for column, own in zip(scores.T, truth.T, strict=True)
    ]
    return float(np.mean(values))


@pytest.mark.parametrize("width", [8, 70])
def test_equal_to_scikit_learn_class_by_class(width: int) -> None:
    """Every C's validation score, the chosen C and the test scores, also of wide features."""
    (features, truth), test = _images(0, width=width), _images(1, width=width)
    rest = np.setdiff1d(np.arange(60), VALIDATION)
    expected = []
    for c in SEARCH.strengths:
        held_out = features[VALIDATION], truth[VALIDATION]
        found = _oracle((features[rest], truth[rest]), held_out, c)
        expected.append(_eleven_points(found, truth[VALIDATION]))
    scores = _score((features, truth), test)
    trials = scores.details["held_out"]
    assert [trial["mAP_11_points"] for trial in trials] == pytest.approx(expected, rel=1e-12)
    best = SEARCH.strengths[int(np.argmax(expected))]
    assert scores.details["C"] == best
    final = _oracle((features, truth), test, best)
    assert isinstance(scores.predictions, RankingPredictions)
    np.testing.assert_allclose(scores.predictions.scores, final, rtol=2e-4, atol=2e-4)
    assert scores.headline == "mAP_11_points"
    assert scores.value == pytest.approx(_eleven_points(final, test[1]), rel=1e-12)
    classes = scores.details["classes"]
    assert [own["class"] for own in classes] == NAMES
    for measure, key in (("mAP", "AP"), ("mAP_11_points", "AP_11_points")):
        mean = np.mean([own[key] for own in classes])
        assert scores.metrics[measure].value == pytest.approx(mean)
        assert scores.predictions.value(measure) == pytest.approx(mean)


def test_the_choice_never_reads_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each C ranks the validation images; the test images are ranked once, by the final fit."""
    ranked: list[Truth] = []

    def noted(scores: npt.NDArray[np.float64], truth: Truth, names: Sequence[str]) -> Any:
        ranked.append(truth)
        return ranking_scores(scores, truth, names)

    monkeypatch.setattr(multi_label, "ranking_scores", noted)
    train, test = _images(0), _images(1, count=50)
    scores = _score(train, test)
    *choosing, last = ranked
    assert len(choosing) == len(SEARCH.strengths)
    assert all(np.array_equal(truth, train[1][VALIDATION]) for truth in choosing)
    assert last is test[1]
    other = _score(train, (-test[0], test[1]))
    assert other.details["held_out"] == scores.details["held_out"]
    assert other.value < scores.value


def test_the_final_fit_uses_all_training_images() -> None:
    """Other validation features than those that chose C change the test scores."""
    (features, truth), test = _images(0), _images(1)
    search = SearchConfig(min_exponent=0, max_exponent=0, num_values=1)
    other = features.clone()
    other[VALIDATION] = 0
    found = [_score((each, truth), test, search=search) for each in (features, other)]
    assert found[0].details["C"] == found[1].details["C"] == 1
    assert found[0].value != found[1].value


def test_images_left_out_have_no_say() -> None:
    """Images labelled 0 for a class change neither its fits, nor the choice, nor its score."""
    (features, truth), (test_features, test_truth) = _images(0), _images(1)
    other, test_other = features.clone(), test_features.clone()
    other[truth[:, 0] == 0] *= -5
    test_other[test_truth[:, 0] == 0] *= -5
    found = [
        multi_label_regression(
            (train, truth[:, :1]), (test, test_truth[:, :1]), ["a"], SEARCH, validation=VALIDATION
        )
        for train, test in ((features, test_features), (other, test_other))
    ]
    assert {0, 9} & set(VALIDATION.tolist())  # of these some are validation images
    curves = [[trial["mAP_11_points"] for trial in each.details["held_out"]] for each in found]
    assert curves[0] == curves[1]
    assert found[0].metrics == found[1].metrics


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", "none of the 60 test images is of class b; add such images, or remove the class"),
        ("validation", "none of the 20 validation images is of class b; .* from all splits$"),
        ("rest", "none of the 40 other training images is of class b; .* from all splits$"),
    ],
)
def test_a_class_without_positives(split: str, message: str) -> None:
    """The error names the class and the images that lack it, before anything is fitted."""
    train, test = _images(0), _images(1)
    rows = {"validation": VALIDATION, "rest": np.setdiff1d(np.arange(60), VALIDATION)}
    if split == "test":
        test[1][:, 1] = -1
    else:
        train[1][rows[split], 1] = -1
    with pytest.raises(UserError, match=message):
        _score(train, test)


def test_a_class_of_every_image() -> None:
    """Without an image that is not of the class, no threshold can be fitted."""
    train, test = _images(0), _images(1)
    train[1][:, 2] = 1
    with pytest.raises(UserError, match="none of the 40 other training images is not of class c"):
        _score(train, test)


def test_images_drawn_to_choose() -> None:
    """Without published ones a share of all images is drawn by the seed; errors name the remedy."""
    train, test = _images(0), _images(1)
    search = SEARCH.model_copy(update={"held_out_percent": 30.0})
    found = [_score(train, test, search=search, validation=None, seed=seed) for seed in (0, 0, 1)]
    curves = [each.details["held_out"] for each in found]
    assert curves[0] == curves[1] != curves[2]
    few = SEARCH.model_copy(update={"held_out_percent": 2.0})
    with pytest.raises(UserError, match=r"1 validation images .* larger search\.held_out_percent"):
        _score(train, test, search=few, validation=None)


@pytest.fixture
def voc(tmp_path: Path, knn_config: KNNConfig) -> Path:
    """Digits as a VOC tree of two classes: even, and (1 is difficult) small."""
    root = tmp_path / "VOC2007"
    lists = root / "ImageSets/Main"
    (root / "JPEGImages").mkdir(parents=True)
    lists.mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    for split, part in (("train", "trainval"), ("test", "test")):
        images = open_images(knn_config.data, "train" if split == "train" else "test")
        for index, digit in enumerate(images.require_labels()):
            name = f"{split}{index}"
            images[index].save(root / f"JPEGImages/{name}.jpg")
            small = 0 if digit == 1 else (1 if digit < 5 else -1)
            for class_name, value in (("even", 1 - 2 * (digit % 2)), ("small", small)):
                places = [part, *(["val"] if split == "train" and index % 2 else [])]
                for place in places:
                    lines.setdefault(f"{class_name}_{place}", []).append(f"{name} {value:2}\n")
    for name, own in lines.items():
        (lists / f"{name}.txt").write_text("".join(own))
    return root


def _words(root: Path, *more: str) -> list[str]:
    return [
        f"data={{name: imagefolder, root: {root}, image_size: 32, num_workers: 0}}",
        "multi_label={name: halves, layout: voc}",
        "search={num_values: 3, min_exponent: -2, max_exponent: 2}",
        "device=cpu",
        *more,
    ]


def test_the_command_on_voc(run_folder: Path, voc: Path, tmp_path: Path) -> None:
    """The published validation images choose; the record keeps rankings with intervals."""
    out = tmp_path / "logistic.json"
    words = _words(voc, "protocol=kornblith", "data.eval_interpolation=bicubic")
    assert main(["logistic", str(run_folder), "--out", str(out), *words]) == 0
    record = read_record(out)
    assert not any("alike" in text for text in record.warnings)
    assert (record.data_set, record.headline) == ("halves", "mAP_11_points")
    assert record.num_samples == 30
    assert record.details["num_published_validation_images"] == 30
    assert record.details["annotation_sha256"].keys() == {"train", "test"}
    assert record.details["num_labels_left_out"]["test"] == 3
    assert [own["class"] for own in record.details["classes"]] == ["even", "small"]
    assert record.metrics["mAP_11_points"].interval is not None
    assert record.predictions is not None
    assert not any("drawn" in text or "held out" in text for text in record.deviations)
    assert main(["logistic", str(run_folder), "--out", str(tmp_path / "b.json"), *_words(voc)]) == 0
    drawn = read_record(tmp_path / "b.json")
    assert drawn.details["num_published_validation_images"] is None
    assert not any("held out by class" in text for text in drawn.deviations)


@pytest.mark.parametrize("protocol", ["dinov2", "ridge"])
def test_features_that_are_all_alike_are_doubted(
    run_folder: Path, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """A collapsed network's, by either protocol."""

    def collapsed(*given: Any) -> LabelledFeatures:
        found = stored_features(*given)
        return LabelledFeatures(torch.ones_like(found.features), found.labels)

    monkeypatch.setattr(multi_label, "stored_features", collapsed)
    out = tmp_path / "alike.json"
    words = _words(voc, f"protocol={protocol}")
    assert main(["logistic", str(run_folder), "--out", str(out), *words]) == 0
    assert read_record(out).warnings[-1].startswith("all training features are alike")


def test_absent_validation_lists(
    run_folder: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says which list is missing."""
    words = _words(voc, "protocol=kornblith", "multi_label.val_split=valid")
    assert main(["logistic", str(run_folder), "--out", str(tmp_path / "x.json"), *words]) == 2
    assert "contains no CLASS_valid.txt" in capsys.readouterr().err


def _config(**changes: Any) -> LogisticConfig:
    images = {"name": "imagefolder", "root": "x", "image_size": 8}
    labels = {"multi_label": {"name": "pets", "layout": "csv"}}
    return parse_tree(LogisticConfig, {"data": images} | labels | changes, "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"multi_label": {"name": "pets", "layout": "csv", "val_split": "val"}},
            r"multi_label\.val_split needs protocol=kornblith, found 'dinov2'",
        ),
        ({"data": {"name": "digits", "image_size": 32}}, r"needs data\.name=imagefolder"),
    ],
)
def test_invalid_settings(changes: dict[str, Any], message: str) -> None:
    """A contradiction is found when the config is loaded."""
    with pytest.raises(UserError, match=message):
        _config(**changes)


def test_departures_of_drawn_images() -> None:
    """A table without published validation images draws from all alike, as DINOv2 does."""
    kornblith, dinov2 = (
        logistic_deviations(_config(protocol=name)) for name in ("kornblith", "dinov2")
    )
    drawn = "validation images drawn of all images alike (protocol: its authors' own draw)"
    assert drawn in kornblith
    assert not any("drawn" in text or "held out" in text for text in dinov2)


def test_records_from_before_these_settings(knn_config: KNNConfig) -> None:
    """A record that lacks them counts as one made with their defaults."""
    tree = to_tree(parse_tree(LogisticConfig, {"data": to_tree(knn_config.data)}, "test"))
    old = {key: value for key, value in tree.items() if key != "multi_label"}
    assert result_settings(old) == result_settings(tree)
    labels = to_tree(_config())
    del labels["multi_label"]["val_split"]
    assert result_settings(labels) == result_settings(to_tree(_config()))
