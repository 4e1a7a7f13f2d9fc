"""Evaluators called with features in place of images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rsa_eval.campaigns.run_records import make_record_of
from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.diagnostics.geometry import rank_me, uniformity
from rsa_eval.evaluators.knn.evaluator import knn
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.evaluator import linear_probe
from rsa_eval.evaluators.linear.settings import LinearConfig, ProbeConfig
from rsa_eval.evaluators.logistic.evaluator import logistic_regression
from rsa_eval.evaluators.logistic.settings import LogisticConfig
from rsa_eval.evaluators.low_shot.evaluator import low_shot
from rsa_eval.evaluators.low_shot.settings import LowShotConfig
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.svm.evaluator import linear_svm
from rsa_eval.evaluators.svm.settings import SVMConfig
from rsa_eval.features.extract import evaluation_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Scores, read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

Pair = tuple[LabelledFeatures, LabelledFeatures]

_SHORT = {"mode": "cached", "epochs": 3, "milestones": [2], "batch_size": 16}


def _knn(features: Pair, config: KNNConfig) -> Scores:
    return knn(*features, config.settings)


def _leave_one_out(features: Pair, config: KNNConfig) -> Scores:
    return knn(features[0], None, config.settings)


def _linear(features: Pair, config: LinearConfig) -> Scores:
    return linear_probe(*features, config.probe, seed=config.seed)


def _logistic(features: Pair, config: LogisticConfig) -> Scores:
    return logistic_regression(*features, config.search, seed=config.seed)


def _low_shot(features: Pair, config: LowShotConfig) -> Scores:
    return low_shot(*features, config.subsets, config.subset_seeds, config.classifier)


def _svm(features: Pair, config: SVMConfig) -> Scores:
    names = [str(number) for number in range(10)]
    return linear_svm(*features, config.machine, class_names=names, seed=config.seed)


CALLS: list[tuple[str, dict[str, Any], Callable[[Pair, Any], Scores]]] = [
    ("knn", {}, _knn),
    ("knn", {"leave_one_out": True}, _leave_one_out),
    ("linear", {"probe": _SHORT, "seed": 3}, _linear),
    ("linear", {"probe": _SHORT | {"standardise": True, "init_std": None}}, _linear),
    ("logistic", {"search": {"num_values": 3, "held_out_percent": 20}, "seed": 1}, _logistic),
    ("low-shot", {"subsets": [{"per_class": 2}, {"percent": 50}]}, _low_shot),
    ("svm", {"machine": {"costs": [0.001, 0.1]}}, _svm),
]


def _config(knn_config: KNNConfig, name: str, settings: dict[str, Any]) -> EvaluationConfig:
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "batch_size": 16}
    return parse_tree(EVALUATORS[name].config, tree | settings, "test")


@pytest.fixture
def features(subject: Subject, knn_config: KNNConfig) -> Pair:
    """Features of 60 training and 30 test digits, as the commands extract them."""
    with frozen(subject.backbone):
        train, test = (
            evaluation_features(subject, open_images(knn_config.data, split), knn_config, split)
            for split in ("train", "test")
        )
    return train, test


@pytest.mark.parametrize(("name", "settings", "call"), CALLS)
def test_equal_to_the_command(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    features: Pair,
    name: str,
    settings: dict[str, Any],
    call: Callable[[Pair, Any], Scores],
) -> None:
    """The same numbers to the last digit, and the same details but for the images' identity."""
    config = _config(knn_config, name, settings)
    expected = EVALUATORS[name].evaluate(subject, config, workspace)
    found = call(features, config)
    assert found.metrics == expected.metrics
    assert (found.headline, found.num_samples) == (expected.headline, expected.num_samples)
    assert found.value == expected.metrics[expected.headline].value
    details = dict(expected.details)
    for key in details.keys() - found.details.keys():
        assert key in {"images", "annotation_sha256", "num_published_validation_images"}
        del details[key]
    for subset in details.get("subsets", ()):
        for run in subset["runs"]:
            del run["sha256"]
    for own in (details, found.details):
        for run in (run for subset in own.get("subsets", ()) for run in subset["runs"]):
            del run["iterations"]  # BLAS rounds by the alignment of NumPy's arrays
    assert found.details == details


def test_heads_are_chosen_on_the_same_rows(features: Pair) -> None:
    """Several rates hold training images out; the rate of one head is trained as if alone."""
    probe = ProbeConfig.model_validate(_SHORT | {"base_lr": [0.1, 30.0], "held_out_share": 0.5})
    details = linear_probe(*features, probe).details
    assert details["num_held_out_images"] == 30
    best = max(details["heads"], key=lambda head: head["held_out_top1"])
    assert details["chosen_base_lr"] == best["base_lr"]
    assert details["loss_by_epoch"] == best["loss_by_epoch"]


def test_geometry_is_that_of_the_diagnostics(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, features: Pair
) -> None:
    """Rank and uniformity are functions of the features alone."""
    config = _config(knn_config, "diagnostics", {"embedding": {"method": "pca"}})
    metrics = EVALUATORS["diagnostics"].evaluate(subject, config, workspace).metrics
    assert metrics["rankme"].value == rank_me(features[1].features)
    assert metrics["uniformity"].value == uniformity(features[1].features)


def test_a_checkpoint_is_evaluated_by_a_config_object(
    run_folder: Any, knn_config: KNNConfig, workspace: Workspace, features: Pair
) -> None:
    """One call evaluates and writes the record, which is read back whole."""
    record = make_record_of(run_folder, EVALUATORS["knn"], knn_config, workspace.record)
    assert read_record(workspace.record) == record
    scores = knn(*features)
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert values == {name: metric.value for name, metric in scores.metrics.items()}
    interval, metric = scores.interval(), record.metrics["top1"]
    assert interval is not None
    assert metric.interval is not None
    assert (interval.low, interval.high) == (metric.interval.low, metric.interval.high)
    assert interval.low < metric.value < interval.high


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"train": ([[1.0]] * 4, None)}, "4 of 4 training images have no class"),
        ({"test": ([[1.0]] * 2, [0, -1])}, "1 of 2 test images have no class"),
        (
            {"train": ([[1.0]] * 4, [1] * 4)},
            "all 4 training images are of class 1; an evaluation needs two classes or more$",
        ),
        (
            {"test": ([[1.0]], [5])},
            "a test image is of class 5, .* have classes 0 to 1; add training images of it, or "
            "leave it out$",
        ),
        ({"test": ([[1.0, 2.0]], [1])}, "training features are 1 wide, test features 2"),
    ],
)
def test_features_that_do_not_fit(changes: dict[str, Any], error: str) -> None:
    """Every evaluator refuses them alike."""
    arrays = {"train": ([[1.0], [2.0], [3.0], [4.0]], [0, 1, 0, 1]), "test": ([[1.0]], [0])}
    train, test = (LabelledFeatures.of(*pair) for pair in (arrays | changes).values())
    for evaluate in (knn, linear_probe, logistic_regression, low_shot, linear_svm):
        with pytest.raises(UserError, match=error):
            evaluate(train, test)


def test_settings_that_need_images() -> None:
    """Fresh views and lists of files are refused, for features have neither."""
    train = LabelledFeatures.of(torch.eye(4), [0, 1, 0, 1])
    with pytest.raises(UserError, match=r"needs probe\.mode 'cached', found 'online'"):
        linear_probe(train, train, ProbeConfig())
    with pytest.raises(UserError, match="list_ten names image files"):
        low_shot(train, train, [Subset.model_validate({"list_file": "ten.txt"})])
    with pytest.raises(UserError, match=r"of class 1, but num_classes is 1; set it to 2 or more$"):
        knn(train, train, num_classes=1)
