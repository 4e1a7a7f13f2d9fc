"""Evaluators of features in files: the numbers of their functions, in a record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsa_eval.campaigns.given_records import make_record_of_features
from rsa_eval.campaigns.run_records import check_replaceable, recorded
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.evaluators.diagnostics.geometry import rank_me, uniformity
from rsa_eval.evaluators.given import GIVEN_EVALUATORS
from rsa_eval.evaluators.knn.evaluator import knn
from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.linear.evaluator import linear_probe
from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, ProbeConfig
from rsa_eval.evaluators.logistic.evaluator import logistic_regression
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.low_shot.evaluator import low_shot
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.svm.evaluator import linear_svm
from rsa_eval.evaluators.svm.settings import MachineConfig
from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.given import read_features
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_eval.features.identity import FeatureIdentity
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.groups import group_records
from rsa_eval.records.predictions import read_predictions
from rsa_eval.records.record import GIVEN_FEATURES, Record, Scores, read_record
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

Pair = tuple[Path, Path]

SHORT = {"epochs": 3, "milestones": [2], "batch_size": 16}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Clusters of seven classes: 84 training and 35 test images of width 6, in two layouts."""
    draws = np.random.default_rng(0)
    centres = draws.normal(size=(7, 6))
    paths = (tmp_path / "vit_train.npz", tmp_path / "vit_test.npy")
    for path, count in zip(paths, (84, 35), strict=True):
        labels = np.arange(count) % 7
        features = (centres[labels] + draws.normal(size=(count, 6))).astype(np.float32)
        if path.suffix == ".npz":
            np.savez(path, features=features, labels=labels)
        else:
            np.save(path, features)
            np.save(tmp_path / "vit_test_labels.npy", labels)
    return paths


def config_of(kind: str, settings: dict[str, Any]) -> GivenFeaturesConfig:
    """Return an evaluator's settings."""
    tree = {"data_set": "clusters", "device": "cpu"} | settings
    return parse_tree(GIVEN_EVALUATORS[kind].config, tree, "test")


def evaluate(pair: Pair, kind: str, settings: dict[str, Any], out: Path) -> Record:
    """Evaluate two files and write the record."""
    config = config_of(kind, settings)
    return make_record_of_features(*pair, GIVEN_EVALUATORS[kind], config, out)


CALLS: list[tuple[str, dict[str, Any], Callable[[LabelledFeatures, LabelledFeatures], Scores]]] = [
    ("knn", {}, knn),
    (
        "knn",
        {"settings": [{"k": 3, "temperature": None}], "num_classes": 9},
        lambda train, test: knn(train, test, [KNNSetting(k=3, temperature=None)], num_classes=9),
    ),
    (
        "linear",
        {"probe": SHORT, "seed": 2},
        lambda train, test: linear_probe(
            train, test, ProbeConfig.model_validate(SHORT | {"mode": "cached"}), seed=2
        ),
    ),
    (
        "linear",
        {"protocol": "dinov2", "probe": {"epochs": 2}},
        lambda train, test: linear_probe(
            train,
            test,
            LINEAR_PROTOCOLS["dinov2"].model_copy(update={"mode": "cached", "epochs": 2}),
        ),
    ),
    (
        "logistic",
        {"search": {"num_values": 3}, "seed": 1},
        lambda train, test: logistic_regression(train, test, SearchConfig(num_values=3), seed=1),
    ),
    (
        "low-shot",
        {"subsets": [{"per_class": 2}], "subset_seeds": [4]},
        lambda train, test: low_shot(train, test, [Subset(per_class=2)], [4]),
    ),
    (
        "svm",
        {"machine": {"costs": [0.1]}, "num_classes": 7},
        lambda train, test: linear_svm(train, test, MachineConfig(costs=(0.1,))),
    ),
]


@pytest.mark.parametrize(("kind", "settings", "call"), CALLS)
def test_equal_to_the_function(
    pair: Pair,
    kind: str,
    settings: dict[str, Any],
    call: Callable[[LabelledFeatures, LabelledFeatures], Scores],
    tmp_path: Path,
) -> None:
    """Metrics, details and answers are those of the function on the same arrays."""
    record = evaluate(pair, kind, settings, tmp_path / "out.json")
    expected = call(*map(read_features, pair))
    found = {name: metric.value for name, metric in record.metrics.items()}
    assert found == {name: metric.value for name, metric in expected.metrics.items()}
    assert (record.kind, record.headline) == (kind, expected.headline)
    details = dict(record.details)
    del details["given"]
    assert details == expected.details
    kept = read_predictions(tmp_path / "out.json", record)
    assert kept.keys == tuple(map(str, range(35)))
    assert expected.predictions is not None
    for name, array in expected.predictions.arrays().items():
        assert np.array_equal(kept.predictions.arrays()[name], array)


@pytest.mark.parametrize("protocol", ["dinov2", "ridge"])
def test_the_data_sets_metric_is_the_headline(pair: Pair, protocol: str, tmp_path: Path) -> None:
    """Features of Pets have a mean over the classes, as the images have."""
    settings = {"data_set": "oxford_pets", "protocol": protocol, "search": {"num_values": 2}}
    record = evaluate(pair, "logistic", settings, tmp_path / "out.json")
    assert record.headline == "mean_per_class"
    assert record.metrics.keys() == {"top1", "top5", "mean_per_class"}


def test_geometry(pair: Pair, tmp_path: Path) -> None:
    """Rank, uniformity and the vote's accuracy; the rest is named as left out."""
    settings = {"vote": {"k": 5, "temperature": None}}
    record = evaluate(pair, "diagnostics", settings, tmp_path / "out.json")
    train, test = map(read_features, pair)
    assert record.metrics["rankme"].value == rank_me(test.features)
    assert record.metrics["uniformity"].value == uniformity(test.features)
    assert record.metrics.keys() == {"rankme", "alpha_req", "uniformity", "feature_std"}
    assert record.details["left_out"] == ["LiDAR, alignment, plots and tables: they need images"]
    votes = [KNNSetting(k=5, temperature=None)]
    assert record.details["vote_top1"] == knn(train, test, votes).value
    assert record.artifacts == {}
    assert not (tmp_path / "out.artifacts").exists()


def test_geometry_without_classes(pair: Pair, tmp_path: Path) -> None:
    """Features of unlabelled images have a geometry; only the vote is left out."""
    features = read_features(pair[1]).features.numpy()
    np.savez(tmp_path / "photos.npz", features=features, labels=np.full(35, -1))
    files = pair[0], tmp_path / "photos.npz"
    record = evaluate(files, "diagnostics", {}, tmp_path / "out.json")
    assert record.details["left_out"][1:] == [
        "vote and most frequent mistakes: some images have no class"
    ]
    assert record.predictions is None
    with pytest.raises(UserError, match=r"35 of 35 images in '.*photos\.npz' have no class"):
        evaluate(files, "knn", {}, tmp_path / "knn.json")


def test_every_evaluator_that_needs_no_images() -> None:
    """Each has the published protocols of its namesake, whose settings it shares."""
    assert EVALUATORS.keys() - GIVEN_EVALUATORS.keys() == {
        *("finetune", "robustness", "segmentation")
    }
    for kind, given in GIVEN_EVALUATORS.items():
        of_images = EVALUATORS[kind].config.model_fields
        own = given.config.model_fields.keys() - GivenFeaturesConfig.model_fields.keys()
        assert own
        for name in (*own, "protocol", "seed", "device"):
            assert given.config.model_fields[name].annotation == of_images[name].annotation
            assert given.config.model_fields[name].default == of_images[name].default


def test_the_record_says_what_is_known(pair: Pair, tmp_path: Path) -> None:
    """Files, shapes, types and hashes; a conversion is a deviation, and so is what is unknown."""
    features = read_features(pair[0])
    doubles = tmp_path / "double.npz"
    np.savez(doubles, X=features.features.double().numpy(), y=features.labels.numpy())
    record = evaluate((doubles, pair[1]), "knn", {}, tmp_path / "out.json")
    assert read_record(tmp_path / "out.json") == record
    assert not record.model.is_random
    assert record.model.network == "given features"
    assert record.model.checkpoint == str(doubles)
    assert record.data_set == "clusters"
    assert record.deviations[:2] == [
        "features given in files: network, layers, image transform and precision unknown",
        "features given as float64, used as float32",
    ]
    given = record.details["given"]
    assert given["train"]["shape"] == [84, 6]
    assert (given["train"]["dtype"], given["test"]["dtype"]) == ("float64", "float32")
    assert given["train"]["files"].keys() == {"double.npz"}
    assert given["test"]["files"].keys() == {"vit_test.npy", "vit_test_labels.npy"}
    assert given["train"]["identity"] is None
    group = group_records([(tmp_path / "out.json", record)])[0]
    assert not group.is_baseline


def test_records_are_found_again_by_hash_and_settings(pair: Pair, tmp_path: Path) -> None:
    """Other content or other settings are another record."""
    out = tmp_path / "out.json"
    record = evaluate(pair, "knn", {}, out)
    config = config_of("knn", {})
    sha256 = record.model.sha256
    assert recorded(out, sha256, config, GIVEN_FEATURES) == record
    assert recorded(out, None, config, GIVEN_FEATURES) is None
    assert recorded(out, sha256, config_of("knn", {"num_classes": 8}), GIVEN_FEATURES) is None
    check_replaceable(out, config)
    with pytest.raises(UserError, match=r"made with other settings \(data_set\)"):
        check_replaceable(out, config_of("knn", {"data_set": "others"}))
    labels = np.load(tmp_path / "vit_test_labels.npy")
    np.save(tmp_path / "vit_test_labels.npy", labels[::-1])
    assert evaluate(pair, "knn", {}, out).model.sha256 != record.model.sha256


def test_files_that_do_not_fit(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake is named before anything is computed."""
    train, test = pair
    found = read_features(test)
    np.savez(tmp_path / "wide.npz", features=torch.ones(35, 7), labels=found.labels)
    np.savez(tmp_path / "more.npz", features=found.features, labels=found.labels + 1)
    out = tmp_path / "out.json"
    with pytest.raises(UserError, match=r"train\.npz' and '.*train\.npz' have the same content"):
        evaluate((train, train), "knn", {}, out)
    with pytest.raises(UserError, match=r"train\.npz' has features of width 6, '.*wide\.npz' of 7"):
        evaluate((train, tmp_path / "wide.npz"), "knn", {}, out)
    for kind in ("knn", "linear", "svm"):
        with pytest.raises(UserError, match="a test image is of class 7, but the training images"):
            evaluate((train, tmp_path / "more.npz"), kind, {}, out)
    ids = np.where(np.arange(84) == 5, 70_000, np.arange(84) % 7)
    np.savez(tmp_path / "ids.npz", features=read_features(train).features, labels=ids)
    with pytest.raises(UserError, match="has the label 70000 among 84 images; expected class ind"):
        evaluate((tmp_path / "ids.npz", test), "svm", {}, out)
    with pytest.raises(UserError, match="num_classes is 3; set it to 7 or more"):
        evaluate(pair, "knn", {"num_classes": 3}, out)
    with pytest.raises(UserError, match=r"probe\.mode online augments images, which given feat"):
        config_of("linear", {"probe": {"mode": "online"}})
    with pytest.raises(UserError, match="list_ten names image files, which features lack"):
        evaluate(pair, "low-shot", {"subsets": [{"list_file": "ten.txt"}]}, out)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="by one process; start it without torchrun"):
        evaluate(pair, "knn", {}, out)
    assert not out.exists()


def test_caches_of_different_networks(tmp_path: Path) -> None:
    """The toolkit's own files say where their features come from."""
    paths = []
    for split, weights in (("train", "a"), ("test", "a"), ("other", "b")):
        identity = FeatureIdentity(
            format_version=2,
            weights=weights,
            images=split,
            transform="t",
            layers=("layer4",),
            precision="fp32",
            feature_dtype="fp32",
            library_versions={},
        )
        entry = CacheEntry(tmp_path, split, identity, torch.arange(8) % 2, 3, torch.float32)
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(len(paths)))
        entry.ensure(8, torch.device("cpu"), lambda own, rows=rows: ((0, rows) for _ in own))
        paths.append(entry.path)
    out = tmp_path / "out.json"
    record = evaluate((paths[0], paths[1]), "knn", {}, out)
    assert record.details["given"]["test"]["identity"]["images"] == "test"
    assert record.deviations[0] == ("features given in caches, of layer4 at fp32: network unknown")
    with pytest.raises(UserError, match="are caches of different weights; expected features of"):
        evaluate((paths[0], paths[2]), "knn", {}, out)
