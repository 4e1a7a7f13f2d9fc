import re
from pathlib import Path
from typing import Any

import pytest

import rsa_eval
from rsa_eval.config import result_settings
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.evaluators.diagnostics.settings import EmbeddingConfig
from rsa_eval.evaluators.finetune.settings import TuningConfig
from rsa_eval.evaluators.knn.evaluator import knn_deviations
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.deviations import linear_deviations
from rsa_eval.evaluators.linear.settings import LinearConfig, ProbeConfig
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.low_shot.settings import ClassifierConfig
from rsa_eval.evaluators.shared.multi_label_settings import MultiLabelConfig
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.svm.settings import MachineConfig
from rsa_pretrain.plumbing.config.files import Section, parse_tree
from rsa_pretrain.plumbing.errors import UserError

DATA = {"name": "digits", "image_size": 32}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"name": "imagefolder"}, False),
        ({"name": "imagefolder", "exif_orientation": False}, False),
        ({"name": "imagefolder", "exif_orientation": True}, True),
        ({"name": "coco", "train_annotations": "a.json"}, True),
        ({"name": "cifar10"}, None),
        ({"name": "cifar10", "exif_orientation": True}, None),
    ],
)
def test_older_records_have_the_turning_that_was(
    data: dict[str, Any], expected: bool | None
) -> None:
    """Detection turned photographs before there was a choice, evaluation did not.

    Sets of pixels have no orientation, and the limit of pixels decides no result.
    """
    settings = result_settings({"data": data | {"max_megapixels": 9}})
    assert settings.get("data.exif_orientation") is expected
    assert "data.max_megapixels" not in settings


def test_older_detectors_of_voc_turned_images() -> None:
    """They have no annotation file by which to know a detector, but its solver."""
    data = {"name": "voc0712", "format": "voc", "train": ["2007/trainval"]}
    settings = result_settings({"data": data, "solver": {"iterations": 24_000}})
    assert settings["data.exif_orientation"] is True
    assert settings["model.features"] == "FPN"
    assert "split" not in settings


def test_following_the_device_makes_no_other_result() -> None:
    """Settings of null are those of older records, which state numbers; other numbers differ."""
    older = result_settings({"batch_size": 256, "memory_budget_mib": 512})
    assert result_settings({"batch_size": None, "memory_budget_mib": None}) == older
    assert result_settings({"batch_size": 255, "memory_budget_mib": 512}) != older
    assert "memory_budget_mib" not in result_settings({"batch_size": None})


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"epochs": 20}, "milestones .* must be below epochs 20"),
        ({"milestones": [80, 60]}, "milestones must increase"),
        ({"nesterov": True, "sgd_momentum": 0}, "needs sgd_momentum above 0, found 0; set either"),
        ({"crop_scale": [0.5, 0.2]}, "crop_scale must satisfy"),
        ({"mode": "offline"}, "probe.mode"),
        ({"base_lr": []}, "probe.base_lr"),
        ({"base_lr": [1.0, 0.0]}, "probe.base_lr"),
        ({"schedule": "cosine_by_step"}, "schedule cosine_by_step has no milestones"),
        ({"epoch": 3}, "unknown key 'probe.epoch'; the nearest valid key is 'probe.epochs'"),
    ],
)
def test_invalid_probes_are_refused(probe: dict[str, Any], message: str) -> None:
    """A contradiction or a misspelt key is found when the config is loaded."""
    with pytest.raises(UserError, match=message):
        parse_tree(LinearConfig, {"data": DATA, "probe": probe}, "test")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"settings": [{"k": 0, "temperature": 0.1}]}, "settings"),
        ({"settings": [{"k": 1, "temperature": 0}]}, "settings"),
        ({"settings": [{"k": 1}]}, "settings"),
        ({"layers": ["layer4", "layer4"]}, "layers must differ"),
    ],
)
def test_invalid_votes_and_layers_are_refused(tree: dict[str, Any], message: str) -> None:
    """K is at least 1, T is above 0 or null, neither is left out; features hold a layer once."""
    with pytest.raises(UserError, match=message):
        parse_tree(KNNConfig, {"data": DATA} | tree, "test")


def test_published_settings_deviate_in_nothing() -> None:
    """The defaults are the protocols."""
    assert linear_deviations(parse_tree(LinearConfig, {"data": DATA}, "test"), 600) == []
    assert knn_deviations(parse_tree(KNNConfig, {"data": DATA}, "test"), 1437) == []


def test_departures_are_told_in_words() -> None:
    """Every setting that moves the number is listed beside the published one."""
    tree = {
        "data": DATA | {"num_train_images": 100},
        "precision": "bf16",
        "layers": ["layer3", "layer4"],
        "feature_dtype": "fp16",
        "settings": [{"k": 20, "temperature": None}],
    }
    assert knn_deviations(parse_tree(KNNConfig, tree, "test"), 10) == [
        "100 training images (protocol: all)",
        "precision bf16 (protocol: fp32)",
        "features of layer3 and layer4 (protocol: layer4)",
        "features kept in fp16 (protocol: fp32)",
        "k=20, unweighted (protocol: k=200, T=0.1)",
        "all 10 training images vote (k=20)",
    ]


@pytest.mark.parametrize(
    "model",
    [evaluator.config for evaluator in EVALUATORS.values()]
    + [ProbeConfig, SearchConfig, ClassifierConfig, MachineConfig, TuningConfig, EmbeddingConfig]
    + [MultiLabelConfig, Subset],
)
def test_every_field_is_read(model: type[Section]) -> None:
    """No option is accepted and then forgotten."""
    folder = Path(rsa_eval.__file__).parent
    code = "".join(path.read_text() for path in folder.rglob("*.py"))
    unread = [name for name in model.model_fields if not re.search(rf"\.{name}\b", code)]
    assert unread == []
