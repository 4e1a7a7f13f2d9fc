"""Rank images with several classes each by ridge regression, one C for all classes.

Targets of a class are 1 and -1, on the images that are not left out of it. Classes that have the
same such images share a decomposition.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.fit import LinearClassifier, score_blocks
from rsa_eval.evaluators.logistic.ridge import LeftOut, choose_left_out
from rsa_eval.evaluators.logistic.ridge_fits import RidgeFits
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.shared.average_precision import (
    ELEVEN_POINTS,
    average_precisions,
    ranking_scores,
)
from rsa_eval.evaluators.shared.held_out_labels import require_classes
from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.records.record import Scores

_SEARCH = SearchConfig()
# Scores of images left out are kept for as many C at a time as fit: 512 MiB.
_SCORES_AT_ONCE = 2**26


def multi_label_ridge(
    train: tuple[Tensor, Truth],
    test: tuple[Tensor, Truth],
    class_names: Sequence[str],
    search: SearchConfig = _SEARCH,
    *,
    device: torch.device | None = None,
) -> Scores:
    """Rank test images by ridge regression, its C chosen by 11-point mAP, leaving one image out.

    Args:
        train: Features, (N, D), and truth of the training images: 1 (present), -1 (absent) or 0
            (left out of this class), (N, C).
        test: The same of the test images.
        class_names: Names of the C classes.
        search: Values of C; what else it has is not used.
        device: Where to compute; None computes where the features are.

    Returns:
        ``mAP_11_points`` and ``mAP`` as of ``multi_label_regression``; the chosen ``C``, the
        smallest of the best, the score of every other and each class in ``details``.

    Raises:
        UserError: If no test or training image is of a class, all of the latter are, or float64
            resolves no C.
    """
    (features, truth), (test_features, test_truth) = train, test
    require_classes(test_truth, (1,), class_names, "test images")
    require_classes(truth, (1, -1), class_names, "training images")
    tried = {c: _Fits(features.shape[1], len(class_names)) for c in search.strengths}
    for group in _groups(features, truth, device):
        names = [class_names[place] for place in group.classes]
        for c, scores in group.left_out(search.strengths):
            found = average_precisions(scores, group.truth, names)
            tried[c].precisions[group.classes] = [own.eleven_points for own in found]
            group.write_fit(c, tried[c])
    trials = [
        LeftOut(c, float(own.precisions.mean()))
        for c, own in tried.items()
        if not np.isnan(own.precisions).any()
    ]
    c, details = choose_left_out(trials, search, ELEVEN_POINTS)
    blocks = score_blocks(tried[c].classifier, test_features, len(class_names))
    scores = torch.cat([block.cpu() for _, block in blocks]).numpy()
    ranked = ranking_scores(scores, test_truth, class_names)
    return replace(ranked, details=details | ranked.details)


class _Fits:
    """The fits of all classes with one C, filled class by class.

    Args:
        width: D, width of the features.
        num_classes: C.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        self.precisions = np.full(num_classes, np.nan)
        self.classifier = LinearClassifier(
            torch.zeros(width, num_classes, dtype=torch.float64),
            torch.zeros(num_classes, dtype=torch.float64),
            torch.arange(num_classes),
        )


@dataclass(frozen=True)
class _ClassGroup:
    """Classes that the same images have a label for.

    Attributes:
        classes: Their places among all.
        truth: 1 or -1 for each on these images, int8 (n, G).
        fits: Their fits on these images.
    """

    classes: npt.NDArray[np.int64]
    truth: Truth
    fits: RidgeFits

    def left_out(
        self, strengths: Sequence[float]
    ) -> Iterator[tuple[float, npt.NDArray[np.float64]]]:
        """Yield each C that float64 resolves, and each image's scores by the fit without it."""
        at_once = max(1, _SCORES_AT_ONCE // self.truth.size)
        for start in range(0, len(strengths), at_once):
            found = self.fits.left_out(
                strengths[start : start + at_once], lambda scores, _: scores.cpu()
            )
            for c in list(found):
                yield c, torch.cat(found.pop(c)).numpy()

    def write_fit(self, c: float, fits: _Fits) -> None:
        """Write the fit with this C on all images to the places of these classes."""
        weights, intercepts = self.fits.fit(c)
        fits.classifier.weights[:, self.classes] = weights.cpu()
        fits.classifier.intercepts[self.classes] = intercepts.cpu()


def _groups(features: Tensor, truth: Truth, device: torch.device | None) -> Iterator[_ClassGroup]:
    device = features.device if device is None else device
    labelled, group_of = np.unique(truth != 0, axis=1, return_inverse=True)
    for number, known in enumerate(labelled.T):
        classes = np.flatnonzero(group_of.reshape(-1) == number)
        own = truth[np.ix_(known, classes)]
        signs = torch.from_numpy(own)
        rows = features if known.all() else features[torch.from_numpy(known)]
        yield _ClassGroup(classes, own, _fits_of(rows, signs, device))


def _fits_of(features: Tensor, signs: Tensor, device: torch.device) -> RidgeFits:
    def targets(rows: slice) -> Tensor:
        return signs[rows].to(device, torch.float64)

    return RidgeFits(features, targets, signs.mean(dim=0, dtype=torch.float64).to(device))
