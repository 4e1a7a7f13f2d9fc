"""Classify images with their confidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


@torch.no_grad()
def grade(
    scores_of: Callable[[Tensor], Tensor],
    images: LabelledFeatures,
    among: Sequence[int] | None = None,
) -> Graded:
    """Classify images by the softmax of the scores.

    Args:
        scores_of: Turns features, (n, D), into logits, (n, C); minus infinity for a class that
            cannot be predicted.
        images: Features and labels.
        among: Classes that may be predicted, which include those of the images; None allows all.

    Raises:
        UserError: If none of these classes can be predicted, or the scores are not finite.
    """
    parts, confidences = [], []
    for rows in torch.split(torch.arange(len(images.labels)), _SCORED_AT_ONCE):
        scores = scores_of(images.features[rows])
        if among is not None:
            allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
            allowed[torch.tensor(among)] = True
            scores = scores.masked_fill(~allowed, -torch.inf)
            if bool((scores == -torch.inf).all()):
                raise UserError(
                    f"no training image is of the {len(among)} classes that may be predicted; use "
                    "more training images"
                )
        parts.append(answer(scores, images.labels[rows].to(scores.device)))
        confidences.append(scores.softmax(dim=1, dtype=torch.float64).amax(dim=1).cpu())
    # A sum of rounded terms can exceed 1 by a rounding error.
    confidence = torch.cat(confidences).clamp_(max=1).numpy()
    if np.isnan(confidence).any():
        raise UserError("the classifier's scores are not finite; lower its learning rate")
    answers = Answers.sound(parts)
    return Graded(answers, calibration_error(confidence, answers.ranks == 0, NUM_BINS))
