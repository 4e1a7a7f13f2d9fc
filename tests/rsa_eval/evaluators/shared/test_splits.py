from typing import Any

import numpy as np
import pytest

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.shared import labelled_images as base
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError


def _images(labels: list[int], class_names: list[str]) -> ImageSet:
    pixels = np.zeros((len(labels), 2, 2, 3), np.uint8)
    return ImageSet.from_array("shards", pixels, labels, class_names)


@pytest.fixture
def open_both(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open, as an evaluation does, a training and a test set made by hand."""
    tree = {
        "protocol": "weighted_vote",
        "data": {"name": "digits", "image_size": 8},
        "backbone": {"arch": "resnet18", "stem": "cifar"},
    }
    config = parse_tree(KNNConfig, tree, "test")

    def call(train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
        splits = {"train": train, "test": test}
        monkeypatch.setattr(base, "open_images", lambda _, split: splits[split])
        return base.open_splits(config)

    return call


def test_a_test_split_may_lack_the_last_classes(open_both: Any) -> None:
    """Both sets come back with training's classes, so that a class has one number."""
    train, test = open_both(_images([0, 1, 2], ["0", "1", "2"]), _images([1, 0], ["0", "1"]))
    assert train.class_names == test.class_names == ["0", "1", "2"]
    assert test.labels == [1, 0]


@pytest.mark.parametrize(
    ("labels", "class_names", "named"),
    [
        (
            [0, 3],
            ["ant", "bee", "cat", "dog"],
            r"\(1\): dog; remove them from the test split or add them to the training split$",
        ),
        (
            [0, 1],
            ["ant", "cat"],
            r"\(1\): cat; remove them from the test split or add them to the training split$",
        ),
        (
            [2, 1, 0],
            ["cat", "bee", "ant"],
            r"\(2\): cat, ant; remove them from the test split or add them to the training split$",
        ),
    ],
)
def test_classes_that_training_numbers_otherwise_are_refused(
    open_both: Any, labels: list[int], class_names: list[str], named: str
) -> None:
    """A class unknown in training, or of another number there, is named and never compared."""
    train = _images([0, 1, 2], ["ant", "bee", "cat"])
    with pytest.raises(UserError, match="lack or number differently " + named):
        open_both(train, _images(labels, class_names))


def test_one_class_is_nothing_to_tell_apart(open_both: Any) -> None:
    """Training images of a single class are refused by its name."""
    names = ["ant", "bee"]
    with pytest.raises(
        UserError,
        match=r"all 2 training images are of class 'bee'; an evaluation needs two classes or more: "
        r"check data\.root and data\.train_dir$",
    ):
        open_both(_images([1, 1], names), _images([1, 0], names))
