"""Properties shared by several evaluators."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree

READ_FEATURES_ALONE: dict[str, dict[str, Any]] = {
    "logistic": {"search": {"num_values": 2, "max_iterations": 5}},
    "low-shot": {"subsets": [{"per_class": 1}], "subset_seeds": [0]},
    "svm": {"machine": {"costs": [0.1]}},
}
TRAINED: dict[str, dict[str, Any]] = {
    "linear": {
        "protocol": "dinov2",
        "probe": {"mode": "cached", "epochs": 5, "batch_size": 16, "held_out_share": 0.5},
    },
    "logistic": {
        "search": {"num_values": 5, "min_exponent": -3, "max_exponent": 1, "held_out_percent": 20}
    },
    "svm": {"machine": {"costs": [0.001, 0.1, 10.0]}},
    "finetune": {
        "subset": None,
        "tuning": {"epochs": 2, "milestones": [1], "batch_size": 8, "head_base_lr": 2.0},
    },
}
CHOSEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "linear": lambda details: (details["chosen_base_lr"], details["heads"]),
    "logistic": lambda details: (details["C"], details["held_out"]),
    "svm": lambda details: [(entry["cost"], entry["fold_AP"]) for entry in details["classes"]],
    "finetune": lambda details: details["loss_by_epoch"],
}


def _config(knn_config: KNNConfig, name: str, settings: dict[str, Any]) -> EvaluationConfig:
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "batch_size": 16}
    return parse_tree(EVALUATORS[name].config, tree | settings, "test")


def _state_bytes(backbone: nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.contiguous().numpy().tobytes()
        for name, tensor in backbone.state_dict().items()
    }


@pytest.mark.parametrize("name", READ_FEATURES_ALONE)
def test_the_backbone_does_not_move(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, name: str
) -> None:
    """Parameters and BatchNorm buffers have the same bytes afterwards, and the modes come back."""
    before = _state_bytes(subject.backbone)
    subject.backbone.train()
    config = _config(knn_config, name, READ_FEATURES_ALONE[name])
    EVALUATORS[name].evaluate(subject, config, workspace)
    assert _state_bytes(subject.backbone) == before
    assert all(module.training for module in subject.backbone.modules())


@pytest.mark.parametrize("name", TRAINED)
def test_the_test_images_have_no_say(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """With shuffled test labels training and choices are the same, only the result differs."""
    config = _config(knn_config, name, TRAINED[name])
    before = EVALUATORS[name].evaluate(subject, config, workspace)
    workspace.remove_states()  # or the second would read what the first trained

    def shuffled(config: Any, split: Any) -> Any:
        images = open_images(config, split)
        if split == "test":
            labels = images.require_labels()
            images.labels = labels[1:] + labels[:1]
        return images

    monkeypatch.setattr("rsa_eval.evaluators.shared.labelled_images.open_images", shuffled)
    after = EVALUATORS[name].evaluate(subject, config, workspace)
    assert CHOSEN[name](after.details) == CHOSEN[name](before.details)
    assert after.metrics != before.metrics
