from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rsa_eval.__main__ import main
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.low_shot.draws import centred_to_unit_norm
from rsa_eval.evaluators.low_shot.evaluator import evaluate_low_shot
from rsa_eval.evaluators.low_shot.settings import LowShotConfig
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.shared.subsets import subset_rows
from rsa_eval.features.extract import evaluation_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError


def _config(knn_config: KNNConfig, **changes: Any) -> LowShotConfig:
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "batch_size": 16}
    return parse_tree(LowShotConfig, tree | changes, "test")


def test_centred_to_unit_norm_by_hand() -> None:
    """Each row loses its own mean and is divided by what length is left."""
    rows = centred_to_unit_norm(torch.tensor([[1.0, 2.0, 3.0], [5.0, 1.0, 0.0]]))
    torch.testing.assert_close(rows[0], torch.tensor([-1.0, 0.0, 1.0]) / 2**0.5)
    assert rows[1].sum().item() == pytest.approx(0, abs=1e-6)
    assert rows[1].norm().item() == pytest.approx(1)


def test_all_subsets_in_one_record(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Metrics are means over the seeds; each run, its seed and its images stand in the details."""
    result = evaluate_low_shot(subject, _config(knn_config), workspace)
    assert list(result.metrics) == [
        "top1_1pct",
        "top1_10pct",
        "top1_1per_class",
        "top1_2per_class",
        "top1_5per_class",
    ]
    assert result.headline == "top1_1pct"
    for entry in result.details["subsets"]:
        accuracies = [run["top1"] for run in entry["runs"]]
        assert [run["seed"] for run in entry["runs"]] == [0, 1, 2]
        assert len({run["sha256"] for run in entry["runs"]}) == 3
        assert entry["top1_mean"] == result.metrics[f"top1_{entry['subset']}"].value
        assert entry["top1_mean"] == mean(accuracies)
        assert entry["top1_std"] == stdev(accuracies)
    counts = {entry["subset"]: entry["count"] for entry in result.details["subsets"]}
    assert counts == {
        "1pct": 10,  # 0.6 images, but one per class
        "10pct": 10,  # 6 images, likewise
        "1per_class": 10,
        "2per_class": 20,
        "5per_class": 50,
    }
    assert result.deviations == [
        "60 training images (protocol: all)",
        "30 test images (protocol: all)",
    ]
    assert result.metrics["top1_5per_class"].value > result.metrics["top1_1per_class"].value


def test_equal_to_a_classifier_made_by_hand(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Features of the drawn images alone, centred and scaled, give the recorded accuracy."""
    config = _config(knn_config, subsets=[{"per_class": 3}], subset_seeds=[5])
    result = evaluate_low_shot(subject, config, workspace)
    train, test = (open_images(config.data, split) for split in ("train", "test"))
    rows = subset_rows(train, Subset(per_class=3), 5)
    with frozen(subject.backbone):
        known = evaluation_features(subject, train.select(rows), config, "train")
        unknown = evaluation_features(subject, test, config, "test")

    def scale(features: torch.Tensor) -> np.ndarray[Any, Any]:
        x = features.double().numpy()
        x = x - x.mean(axis=1, keepdims=True)
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))

    model = LogisticRegression(C=400, fit_intercept=False, tol=1e-6, max_iter=1000)
    model.fit(scale(known.features), known.labels.numpy())
    accuracy = 100 * model.score(scale(unknown.features), unknown.labels.numpy())
    assert result.metrics["top1_3per_class"].value == pytest.approx(accuracy)
    assert result.details["subsets"][0]["top1_std"] is None
    assert "draws of each subset: 1 (protocol: 3)" in result.deviations


def test_other_seeds_other_draws(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """The same seeds repeat the record; another seed draws other images."""
    subsets = [{"per_class": 2}]
    records = [
        evaluate_low_shot(
            subject, _config(knn_config, subsets=subsets, subset_seeds=seeds), workspace
        )
        for seeds in ([0, 1], [0, 1], [0, 2])
    ]
    runs = [record.details["subsets"][0]["runs"] for record in records]
    # BLAS rounds by the alignment of NumPy's arrays, on some processors, which moves the end.
    counts = [[run.pop("iterations") for run in own] for own in runs]
    assert counts[0] == pytest.approx(counts[1], abs=3)
    assert runs[0] == runs[1]
    assert runs[0][0] == runs[2][0]
    assert runs[0][1]["sha256"] != runs[2][1]["sha256"]


def test_a_list_is_one_run(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, tmp_path: Path
) -> None:
    """There is nothing to draw, so the seeds make no further runs and no deviation."""
    images = open_images(knn_config.data, "train")
    rows = subset_rows(images, Subset(per_class=1), 0)
    names = [images.sources.where(int(images.rows[row])) for row in rows]
    (tmp_path / "ten.txt").write_text("\n".join(names))
    config = _config(knn_config, subsets=[{"list_file": str(tmp_path / "ten.txt")}])
    result = evaluate_low_shot(subject, config, workspace)
    entry = result.details["subsets"][0]
    assert list(result.metrics) == ["top1_list_ten"]
    assert (entry["count"], len(entry["runs"]), entry["runs"][0]["seed"]) == (10, 1, None)


def test_all_labels_are_one_run(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """Every seed would draw all images; the other subsets are still drawn once per seed."""
    config = _config(knn_config, subsets=[{"percent": 100}, {"per_class": 1}])
    result = evaluate_low_shot(subject, config, workspace)
    everything, few = result.details["subsets"]
    assert (everything["count"], len(everything["runs"]), len(few["runs"])) == (60, 1, 3)
    assert everything["runs"][0]["seed"] is None
    assert result.predictions is not None
    assert result.predictions.arrays()["names"].tolist() == ["100pct", *["1per_class"] * 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subsets": [{"percent": 1}, {"percent": 1.0}]}, "subsets must differ"),
        ({"subset_seeds": [1, 1]}, "subset_seeds must differ"),
        ({"subsets": []}, "subsets"),
    ],
)
def test_invalid_settings(knn_config: KNNConfig, changes: dict[str, Any], message: str) -> None:
    """Two subsets of one name would be one metric."""
    with pytest.raises(UserError, match=message):
        _config(knn_config, **changes)


def test_the_command(run_folder: Path) -> None:
    """The record has the command's name; older ones, which had another, are read alike."""
    words = ["subsets=[{per_class: 1}]", "subset_seeds=[0]"]
    assert main(["low-shot", str(run_folder), *words]) == 0
    path = run_folder / "records" / "low-shot-msn-digits.json"
    record = read_record(path)
    assert record.kind == "low-shot"
    path.write_text(path.read_text().replace('"low-shot",', '"low_shot",', 1))
    assert read_record(path) == record


def test_too_many_per_class(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line of error names the class that lacks images; no record is left."""
    assert main(["low-shot", str(run_folder), "subsets=[{per_class: 7}]"]) == 2
    assert "error: per_class=7, but class '0'" in capsys.readouterr().err
    assert not list((run_folder / "records").glob("*"))
