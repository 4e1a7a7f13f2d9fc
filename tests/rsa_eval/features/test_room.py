import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.knn.evaluator import evaluate_knn
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.extract import extract_features
from rsa_eval.features.subject import Subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing import memory
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

# Of 60 training and 30 test images, of width 32.
TRAIN, TEST = 60 * 32, 30 * 32


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that leaves so many bytes of memory."""

    def set_free(num_bytes: int) -> None:
        found = memory.FreeMemory(num_bytes, "test")
        monkeypatch.setattr(memory, "available_memory", lambda: found)

    return set_free


@pytest.fixture
def untouched(subject: Subject) -> Subject:
    """A subject that must not see an image."""

    def fail(*_: Any) -> None:
        raise AssertionError("a forward pass")

    subject.backbone.get_submodule("conv1").register_forward_hook(fail)
    return subject


@pytest.mark.parametrize(
    ("name", "changes", "least", "advice"),
    [
        ("knn", {}, 4 * (TRAIN + TEST), "cache_dir=FOLDER.*, or feature_dtype=fp16$"),
        ("knn", {"leave_one_out": True}, 4 * TRAIN, "or feature_dtype=fp16$"),
        ("knn", {"feature_dtype": "fp16"}, 2 * (TRAIN + TEST), "mapped into memory$"),
        ("logistic", {}, 4 * (TRAIN + TEST), "or feature_dtype=fp16$"),
        ("diagnostics", {}, 4 * (TRAIN + TEST), "or feature_dtype=fp16$"),
        ("diagnostics", {"split": "train"}, 4 * TRAIN, "or feature_dtype=fp16$"),
        ("linear", {"probe": {"mode": "cached"}}, 4 * TRAIN, "mapped into memory$"),
        ("linear", {}, 4 * TEST, "mapped into memory$"),
        (
            "linear",
            {"probe": {"mode": "cached"}, "feature_dtype": "fp16", "cache_dir": "there"},
            4 * TRAIN,
            ", and feature_dtype=fp32$",
        ),
        ("svm", {}, 20 * TRAIN, "take fewer images"),
        (
            "low-shot",
            {"subsets": [{"per_class": 3}], "subset_seeds": [0]},
            8 * (3 * 10 * 32 + TEST),
            "take fewer images",
        ),
    ],
)
def test_an_evaluation_is_refused_before_its_first_image(
    name: str,
    changes: dict[str, Any],
    least: int,
    advice: str,
    untouched: Subject,
    knn_config: KNNConfig,
    leave: Callable[[int], None],
    workspace: Workspace,
) -> None:
    """Of what it holds at the same time, to the byte; with the setting that helps it."""
    evaluator = EVALUATORS[name]
    tree = {"data": to_tree(knn_config.data), "batch_size": 16, "device": "cpu", **changes}
    config = parse_tree(evaluator.config, tree, "test")
    leave(least - 1)
    with pytest.raises(UserError, match=f"features of .* images take 0 MiB .*{advice}"):
        evaluator.evaluate(untouched, config, workspace)
    leave(least)
    with pytest.raises(AssertionError, match="a forward pass"):
        evaluator.evaluate(untouched, config, workspace)


def test_features_in_a_cache_need_no_memory(
    subject: Subject,
    knn_config: KNNConfig,
    leave: Callable[[int], None],
    workspace: Workspace,
) -> None:
    """They are mapped from their file."""
    leave(0)
    config = knn_config.model_copy(update={"cache_dir": workspace.record.parent / "cache"})
    assert evaluate_knn(subject, config, workspace).num_samples == 30


def test_features_on_a_gpu_need_no_memory_of_the_cpu(
    untouched: Subject,
    knn_config: KNNConfig,
    leave: Callable[[int], None],
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that do not fit into a quarter of the GPU's do."""
    module = sys.modules["rsa_eval.features.room"]
    gpu = torch.device("cuda", 0)
    leave(4 * TRAIN - 1)
    for most, outcome in ((4 * TEST, UserError), (4 * TRAIN, AssertionError)):
        monkeypatch.setattr(
            module,
            "home_of",
            lambda size, device, most=most: gpu if size <= most else torch.device("cpu"),
        )
        with pytest.raises(outcome, match=r"images take|a forward pass"):
            evaluate_knn(untouched, knn_config, workspace)


def test_any_extraction_is_refused(
    untouched: Subject, knn_config: KNNConfig, leave: Callable[[int], None]
) -> None:
    """Of the monitor, of fine-tuned networks and of users, which need not keep a cache."""
    images = open_images(knn_config.data, "test")
    transform = evaluation_transform(knn_config.data, untouched.mean, untouched.std)
    leave(4 * TEST - 1)
    with pytest.raises(UserError, match=r"features of 30 images take .*; take fewer images$"):
        extract_features(untouched.backbone, images, transform, knn_config, "test")
