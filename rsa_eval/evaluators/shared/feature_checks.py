"""Check that training and test features match, and notice what makes scores of them doubtful."""

from typing import TypeVar

import torch
from torch import Tensor

from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

_ALIKE = 1e-5  # largest difference of features that are alike, relative to their largest number
_ROWS_AT_ONCE = 4096

ScoresT = TypeVar("ScoresT", bound=Scores)


def classes_of(
    train: LabelledFeatures, test: LabelledFeatures | None, num_classes: int | None
) -> int:
    """Check that every image has a class and the widths agree; return the number of classes C.

    Args:
        train: Training features.
        test: Test features; None if the training images are classified.
        num_classes: C, where some classes have no image; None takes the largest training label
            plus one.

    Raises:
        UserError: If an image has no class, all training images are of one class, a label is not
            below C, or the widths differ.
    """
    for what, images in (("training", train), ("test", test)):
        if images is None:
            continue
        if len(images.labels) == 0:
            raise UserError(f"there are no {what} images")
        if images.labels.min() < 0:
            count = int((images.labels < 0).sum())
            raise UserError(
                f"{count} of {len(images.labels)} {what} images have no class; an evaluator needs "
                "a class index from 0 on for each"
            )
    if train.labels.min() == train.labels.max():
        raise UserError(
            f"all {len(train.labels):,} training images are of class {train.labels[0]}; an "
            "evaluation needs two classes or more"
        )
    found = int(train.labels.max()) + 1
    expected = found if num_classes is None else num_classes
    if found > expected:
        raise UserError(
            f"a training image is of class {found - 1}, but num_classes is {expected}; set it to "
            f"{found} or more"
        )
    if test is None:
        return expected
    if test.labels.max() >= expected:
        raise UserError(
            f"a test image is of class {int(test.labels.max())}, but the training images have "
            f"classes 0 to {expected - 1}; add training images of it, or leave it out"
        )
    if train.features.shape[1] != test.features.shape[1]:
        raise UserError(
            f"training features are {train.features.shape[1]} wide, test features "
            f"{test.features.shape[1]}; extract both from the same layers"
        )
    return expected


def with_doubts(
    scores: ScoresT,
    train: LabelledFeatures,
    test: LabelledFeatures | None,
    num_classes: int | None = None,
) -> ScoresT:
    """Add warnings of what makes scores doubtful: classes without training images, alike features.

    Args:
        scores: The scores.
        train: Training features.
        test: Test features; None if the training images are classified.
        num_classes: Number of classes, where it is stated; None for features that do not state it.
    """
    scores = scores.warned(_doubts_of_classes(train, test, num_classes))
    return with_doubt_if_alike(scores, train.features)


def with_doubt_if_alike(scores: ScoresT, features: Tensor) -> ScoresT:
    """Add a warning if all training features, (N, D), are equal but for rounding."""
    if not _are_alike(features):
        return scores
    return scores.warned(
        [
            "all training features are alike, so the scores say nothing of the network; check how "
            "they were made, or whether its training collapsed"
        ]
    )


def _doubts_of_classes(
    train: LabelledFeatures, test: LabelledFeatures | None, num_classes: int | None
) -> list[str]:
    known = torch.unique(train.labels[train.labels >= 0])
    if len(known) == 0:
        return []
    found = []
    largest = int(known[-1])
    if num_classes is None and len(known) <= largest:
        found.append(
            f"{largest + 1:,} classes, of which {largest + 1 - len(known):,} have no training "
            "image; number the classes from 0 on without gaps, or state them by num_classes"
        )
    if test is not None:
        missing = test.labels[(test.labels >= 0) & ~torch.isin(test.labels, known)]
        if len(missing):
            classes = torch.unique(missing).tolist()
            found.append(
                f"{len(missing):,} of {len(test.labels):,} test images are of classes without a "
                f"training image ({first_of([*map(str, classes)])}), which cannot be predicted"
            )
    return found


def _are_alike(features: Tensor) -> bool:
    """Return whether all rows are equal but for rounding."""
    first = features[0]
    limit = _ALIKE * first.abs().max()
    blocks = (features[at : at + _ROWS_AT_ONCE] for at in range(0, len(features), _ROWS_AT_ONCE))
    return all(bool((block - first).abs().max() <= limit) for block in blocks)
