from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from rsa_eval.__main__ import main
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.shared.average_precision import average_precisions
from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.evaluators.svm import evaluator
from rsa_eval.evaluators.svm.binary_svm import (
    Matrix,
    score_images,
    to_unit_norm,
    train_machines,
)
from rsa_eval.evaluators.svm.evaluator import evaluate_svm
from rsa_eval.evaluators.svm.settings import MachineConfig, SVMConfig
from rsa_eval.features.extract import evaluation_features
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import WARNINGS, Result, read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

FEW = MachineConfig(costs=(0.001, 0.1, 10.0))


def _problem(seed: int, count: int = 60) -> tuple[Matrix, Truth]:
    """Two classes that may come together, and some images that one of them leaves out."""
    generator = np.random.default_rng(seed)
    truth = np.where(generator.random((count, 2)) < 0.4, 1, -1).astype(np.int8)
    features = generator.normal(size=(count, 5))
    features[:, :2] += truth
    truth[::9, 0] = 0
    return to_unit_norm(features), truth


def test_unit_norm() -> None:
    """Rows are divided by their length plus 1e-5."""
    row = to_unit_norm(np.array([[3.0, 4.0]]))[0]
    assert row.tolist() == pytest.approx([3 / 5.00001, 4 / 5.00001], rel=1e-12)


def test_published_costs() -> None:
    """Goyal et al. try 0.01, 0.1 and the powers of a half from 2^-4 to 2^-19, by three folds."""
    machine = MachineConfig()
    published = sorted([0.01, 0.1, *(0.5**power for power in range(4, 20))])
    assert list(machine.costs) == published
    assert (machine.folds, machine.positive_weight, machine.max_iterations) == (3, 2, 2000)


def test_equal_to_the_protocol_written_out() -> None:
    """Per class: three folds per cost, the best mean average precision, one fit on all images."""
    features, truth = _problem(0)
    machines = train_machines(features, truth, ["a", "b"], FEW, seed=0)
    common = {"class_weight": {1: 2, -1: 1}, "dual": True, "max_iter": 2000, "random_state": 0}
    for number, machine in enumerate(machines):
        known = truth[:, number] != 0
        x, y = features[known], truth[known, number]
        means = []
        for cost in FEW.costs:
            svc = LinearSVC(C=cost, **common)
            means.append(cross_val_score(svc, x, y, cv=3, scoring="average_precision").mean())
        best = FEW.costs[int(np.argmax(means))]
        svc = LinearSVC(C=best, **common)
        assert machine.cost == best
        assert machine.fold_ap == pytest.approx([100 * value for value in means])
        np.testing.assert_array_equal(machine.estimator.coef_, svc.fit(x, y).coef_)


def test_images_left_out_have_no_say() -> None:
    """Images labelled 0 for a class change neither its machine nor its score."""
    features, truth = _problem(0)
    other = features.copy()
    other[::9] = -5 * other[::9]
    machines, changed = (
        train_machines(x, truth[:, :1], ["a"], FEW, seed=0) for x in (features, other)
    )
    np.testing.assert_array_equal(machines[0].estimator.coef_, changed[0].estimator.coef_)
    scores = [
        average_precisions(score_images(machines, x), truth[:, :1], ["a"])
        for x in (features, other)
    ]
    assert scores[0] == scores[1]
    assert scores[0][0].area > 60


def test_classes_too_small() -> None:
    """Each fold needs an image of the class and one that is not; a test needs one."""
    features, truth = _problem(0)
    truth[:, 0] = -1
    truth[:2, 0] = 1
    with pytest.raises(UserError, match=r"2 training images are of class 'a'; .* with 3 folds"):
        train_machines(features, truth, ["a", "b"], FEW, seed=0)
    with pytest.raises(UserError, match="0 training images are not of class 'a'"):
        train_machines(features, np.ones_like(truth), ["a", "b"], FEW, seed=0)
    machines = train_machines(*_problem(0), ["a", "b"], FEW, seed=0)
    with pytest.raises(UserError, match="no test image is of class 'a'"):
        average_precisions(score_images(machines, features), -np.ones_like(truth), ["a", "b"])


def _config(knn_config: KNNConfig, **changes: Any) -> SVMConfig:
    tree = {
        "data": to_tree(knn_config.data),
        "device": "cpu",
        "batch_size": 16,
        "machine": to_tree(FEW),
    }
    return parse_tree(SVMConfig, tree | changes, "test")


def test_single_labels_one_against_the_rest(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Ten digits make ten machines; the metrics are the means of the classes, and repeat."""
    result = evaluate_svm(subject, _config(knn_config), workspace)
    classes = result.details["classes"]
    assert [entry["class"] for entry in classes] == [str(digit) for digit in range(10)]
    assert all(entry["cost"] in FEW.costs for entry in classes)
    mean_ap = sum(entry["AP"] for entry in classes) / 10
    assert result.metrics["mAP"].value == pytest.approx(mean_ap)
    mean_points = sum(entry["AP_11_points"] for entry in classes) / 10
    assert result.metrics["mAP_11_points"].value == pytest.approx(mean_points)
    assert 30 < mean_ap <= 100
    assert "one class per image (protocol: several)" in result.deviations
    assert "costs 0.001 and 0.1 and 10" in " ".join(result.deviations)
    assert evaluate_svm(subject, _config(knn_config), workspace).metrics == result.metrics


def test_features_that_are_all_alike_are_doubted(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A collapsed network's; those of other networks are not."""

    def collapsed(*given: Any) -> LabelledFeatures:
        found = evaluation_features(*given)
        return LabelledFeatures(torch.ones_like(found.features), found.labels)

    own = _config(knn_config)
    assert not any("alike" in text for text in _warnings(evaluate_svm(subject, own, workspace)))
    monkeypatch.setattr(evaluator, "evaluation_features", collapsed)
    warnings = _warnings(evaluate_svm(subject, own, workspace))
    assert warnings[-1].startswith("all training features are alike")


def _warnings(result: Result) -> list[str]:
    found: list[str] = result.details.get(WARNINGS, [])
    return found


@pytest.fixture
def tables(tmp_path: Path, knn_config: KNNConfig) -> Path:
    """Digits as files, with two new classes: even, and (1 left out) small."""
    root = tmp_path / "pets"
    root.mkdir()
    for split in ("train", "test"):
        images = open_images(knn_config.data, "train" if split == "train" else "test")
        lines = ["image,even,small"]
        for index, digit in enumerate(images.require_labels()):
            images[index].save(root / f"{split}{index}.png")
            small = 0 if digit == 1 else (1 if digit < 5 else -1)
            lines.append(f"{split}{index}.png,{1 if digit % 2 == 0 else -1},{small}")
        (root / f"{split}.csv").write_text("\n".join(lines))
    return root


def test_the_command_on_tables(run_folder: Path, tables: Path, tmp_path: Path) -> None:
    """A multi-label set runs through the command; what it leaves out is a departure."""
    out = tmp_path / "svm.json"
    words = [
        f"data={{name: imagefolder, root: {tables}, image_size: 32, num_workers: 0}}",
        "multi_label={name: halves, layout: csv, train_split: train}",
        "machine.costs=[0.1]",
        "device=cpu",
    ]
    assert main(["svm", str(run_folder), "--out", str(out), *words]) == 0
    record = read_record(out)
    assert record.data_set == "halves"
    assert record.num_samples == 30
    assert [entry["class"] for entry in record.details["classes"]] == ["even", "small"]
    assert record.details["annotation_sha256"].keys() == {"train", "test"}
    assert any("labelled 0 left out of training" in text for text in record.deviations)


def test_splits_of_other_classes(
    run_folder: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training and test images must be annotated alike; one line of error says in what not."""
    path = tables / "test.csv"
    path.write_text(path.read_text().replace("image,even,small", "image,even,large"))
    words = [
        f"data={{name: imagefolder, root: {tables}, image_size: 32, num_workers: 0}}",
        "multi_label={name: halves, layout: csv, train_split: train}",
    ]
    assert main(["svm", str(run_folder), "--out", str(tmp_path / "x.json"), *words]) == 2
    error = capsys.readouterr().err
    assert (
        "error: training and test images of halves differ in classes: large, small; give both "
        "the same classes in the same order" in error
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machine": {"costs": [1, 0.1]}}, "costs must increase"),
        ({"multi_label": {"name": "x", "layout": "csv"}}, "needs data.name=imagefolder"),
        (
            {
                "multi_label": {"name": "x", "layout": "csv", "val_split": "val"},
                "data": {"name": "imagefolder", "root": "x", "image_size": 8},
            },
            r"multi_label\.val_split has no meaning for svm",
        ),
        (
            {
                "multi_label": {"name": "x", "layout": "csv"},
                "data": {"name": "imagefolder", "root": "x", "image_size": 8, "train_dir": "y"},
            },
            r"data\.train_dir has no meaning with multi_label",
        ),
    ],
)
def test_invalid_settings(knn_config: KNNConfig, changes: dict[str, Any], message: str) -> None:
    """A contradiction is found when the config is loaded."""
    with pytest.raises(UserError, match=message):
        _config(knn_config, **changes)


def test_the_name_of_the_data_set(knn_config: KNNConfig) -> None:
    """Single labels keep the data set's name."""
    assert _config(knn_config).data_set == "digits"
