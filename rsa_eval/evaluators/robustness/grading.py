"""Classify images with their confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rsa_eval.evaluators.logistic.fit import LinearClassifier
from rsa_eval.evaluators.robustness.calibration import Calibration, calibration_error
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.plumbing.errors import UserError

NUM_BINS = 15
"""As in Guo et al. 2017."""

_SCORED_AT_ONCE = 8192


@dataclass(frozen=True)
class Graded:
    """A classifier's answers to images, and how well it knows which are right."""

    answers: Answers
    calibration: Calibration

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return self.answers.counts.top1_percent

    def details(self) -> dict[str, Any]:
        """Return the calibration for a record's details."""
        return {"bins": [vars(each) for each in self.calibration.bins]}


def grade(
    classifier: LinearClassifier,
    images: LabelledFeatures,
    num_classes: int,
    among: Sequence[int] | None = None,
) -> Graded:
    """Classify images by the softmax of the scores.

    Args:
        classifier: The classifier; it never predicts a class it has not seen.
        images: Features and labels.
        num_classes: Number of classes.
        among: Classes that may be predicted, which include those of the images; None allows all.

    Raises:
        UserError: If the classifier has seen none of the classes that may be predicted.
    """
    allowed = torch.zeros(num_classes, dtype=torch.bool, device=classifier.weights.device)
    allowed[slice(None) if among is None else torch.tensor(among)] = True
    if not allowed[classifier.classes].any():
        raise UserError(
            f"no training image is of the {int(allowed.sum())} classes that may be predicted; use "
            "more training images"
        )
    parts, confidences = [], []
    for rows in torch.split(torch.arange(len(images.labels)), _SCORED_AT_ONCE):
        scores = classifier.scores(images.features[rows], num_classes)
        scores = scores.masked_fill(~allowed, -torch.inf)
        parts.append(answer(scores, images.labels[rows].to(scores.device)))
        confidences.append(scores.softmax(dim=1).amax(dim=1).cpu())
    answers = Answers.sound(parts)
    # A sum of rounded terms can exceed 1 by a rounding error.
    confidence = torch.cat(confidences).clamp_(max=1).numpy()
    return Graded(answers, calibration_error(confidence, answers.ranks == 0, NUM_BINS))
