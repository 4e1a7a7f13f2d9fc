"""Rank images with several classes each by ridge regression, one C for all classes.

Targets of a class are 1 and -1, on the images that are not left out of it. Classes that have the
same such images share a Gram matrix: a fit is linear in its targets, so that the fits of the
combinations of these classes, each against the rest, add up to those of the classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.fit import score_blocks
from rsa_eval.evaluators.logistic.ridge import LeftOut, RidgePath, choose_left_out
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.evaluators.shared.average_precision import (
    ELEVEN_POINTS,
    average_precisions,
    ranking_scores,
)
from rsa_eval.evaluators.shared.held_out_labels import require_classes
from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import Scores

_SEARCH = SearchConfig()


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
        UserError: If no test or training image is of a class, or all of the latter are.
    """
    (features, truth), (test_features, test_truth) = train, test
    require_classes(test_truth, (1,), class_names, "test images")
    require_classes(truth, (1, -1), class_names, "training images")
    groups = list(_groups(features, truth, device))
    precisions: dict[float, list[float]] = {}
    for group in groups:
        names = [class_names[place] for place in group.classes]
        for c, scores in group.left_out(search.strengths).items():
            found = average_precisions(scores, group.truth, names)
            precisions.setdefault(c, []).extend(each.eleven_points for each in found)
    trials = [
        LeftOut(c, float(np.mean(own)))
        for c, own in precisions.items()
        if len(own) == len(class_names)
    ]
    c, details = choose_left_out(trials, search, ELEVEN_POINTS)
    scores = np.empty(test_truth.shape)
    for group in groups:
        scores[:, group.classes] = group.scores(test_features, c)
    ranked = ranking_scores(scores, test_truth, class_names)
    return replace(ranked, details=details | ranked.details)


@dataclass(frozen=True)
class _ClassGroup:
    """Classes that the same images have a label for.

    Attributes:
        classes: Their places among all.
        truth: 1 or -1 for each on these images, int8 (n, G).
        combinations: Those of these classes that occur, 1 or -1, (K, G).
        path: Fits of the combinations, each against the rest.
    """

    classes: npt.NDArray[np.int64]
    truth: Truth
    combinations: Tensor
    path: RidgePath

    def left_out(self, strengths: Sequence[float]) -> dict[float, npt.NDArray[np.float64]]:
        """Return each image's scores by the fit without it for each C, (n, G)."""
        found = self.path.left_out(strengths, lambda scores, _: self._of_classes(scores).cpu())
        return {c: torch.cat(blocks).numpy() for c, blocks in found.items()}

    def scores(self, features: Tensor, c: float) -> npt.NDArray[np.float64]:
        """Return scores of other images, (M, G)."""
        blocks = score_blocks(self.path.classifier(c), features, len(self.combinations))
        found = torch.cat([self._of_classes(scores).cpu() for _, scores in blocks])
        return np.asarray(found)

    def _of_classes(self, scores: Tensor) -> Tensor:
        # Targets of 1 and -1, halved with 1 added, are 1 for an image's combination, else 0.
        return (scores + 1) / 2 @ self.combinations.to(scores)


def _groups(features: Tensor, truth: Truth, device: torch.device | None) -> Iterator[_ClassGroup]:
    labelled, group_of = np.unique(truth != 0, axis=1, return_inverse=True)
    for number, known in enumerate(labelled.T):
        classes = np.flatnonzero(group_of.reshape(-1) == number)
        own = truth[np.ix_(known, classes)]
        combinations, labels = np.unique(own, axis=0, return_inverse=True)
        rows = features if known.all() else features[torch.from_numpy(known)]
        images = LabelledFeatures(rows, torch.from_numpy(labels.reshape(-1)))
        path = RidgePath(images, device)
        yield _ClassGroup(classes, own, torch.from_numpy(combinations), path)
