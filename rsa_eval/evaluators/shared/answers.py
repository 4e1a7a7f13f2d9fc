"""Prepare classifiers' answers to be kept beside a record."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from rsa_eval.evaluators.shared.metrics import Answers
from rsa_eval.records.class_predictions import ClassPredictions


def kept_answers(
    labels: Tensor, answers: Mapping[str, Sequence[Answers]], num_classes: int
) -> ClassPredictions:
    """Return the answers of one or several classifiers to the same images.

    Args:
        labels: True classes, int64 (N,).
        answers: By the suffix of their metrics, empty for ``top1`` itself; several of one name
            are averaged, as draws of a subset are.
        num_classes: Number of classes.
    """
    rows = [(name, own) for name, several in answers.items() for own in several]
    return ClassPredictions(
        labels=labels.numpy(),
        predicted=np.stack([own.predicted for _, own in rows]),
        ranks=np.stack([own.ranks for _, own in rows]),
        names=tuple(name for name, _ in rows),
        num_classes=num_classes,
    )
