"""Evaluations that read features and nothing more leave the backbone as it was."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.knn_config import KNNConfig
from rsa_eval.subject import Subject
from rsa_pretrain.config_files import parse_tree, to_tree

SETTINGS: dict[str, dict[str, Any]] = {
    "logistic": {"search": {"num_values": 2, "max_iterations": 5}},
    "low-shot": {"subsets": [{"per_class": 1}], "subset_seeds": [0]},
    "svm": {"machine": {"costs": [0.1]}},
}


def _state_bytes(backbone: nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.contiguous().numpy().tobytes()
        for name, tensor in backbone.state_dict().items()
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_the_backbone_does_not_move(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, name: str
) -> None:
    """Parameters and BatchNorm buffers have the same bytes afterwards, and the modes come back."""
    before = _state_bytes(subject.backbone)
    subject.backbone.train()
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "batch_size": 16}
    config = parse_tree(EVALUATORS[name].config, tree | SETTINGS[name], "test")
    evaluate: Callable[..., Any] = EVALUATORS[name].evaluate
    evaluate(subject, config, workspace)
    assert _state_bytes(subject.backbone) == before
    assert all(module.training for module in subject.backbone.modules())
