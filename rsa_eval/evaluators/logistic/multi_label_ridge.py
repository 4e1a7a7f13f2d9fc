"""Rank images with several classes each by ridge regression, one C for all classes.

Targets of a class are 1 and -1, on the images that are not left out of it. Classes that have the
same such images share a decomposition: a fit is linear in its targets, so that the fits of the
combinations of these classes, each against the rest, add up to those of the classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.fit import LinearClassifier, score_blocks
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
        UserError: If no test or training image is of a class, all of the latter are, or float64
            resolves no C.
    """
    (features, truth), (test_features, test_truth) = train, test
    require_classes(test_truth, (1,), class_names, "test images")
    require_classes(truth, (1, -1), class_names, "training images")
    tried = {c: _Fits(features.shape[1], len(class_names)) for c in search.strengths}
    for group in _groups(features, truth, device):
        names = [class_names[place] for place in group.classes]
        for c, scores in group.left_out(search.strengths).items():
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
        combinations: Those of these classes that occur, 1 or -1, (K, G).
        path: Fits of the combinations, each against the rest.
    """

    classes: npt.NDArray[np.int64]
    truth: Truth
    combinations: Tensor
    path: RidgePath

    def left_out(self, strengths: Sequence[float]) -> dict[float, npt.NDArray[np.float64]]:
        """Return each image's scores by the fit without it for each C, (n, G)."""
        found = self.path.left_out(strengths, lambda scores, _: self._add(scores + 1).cpu())
        return {c: torch.cat(blocks).numpy() for c, blocks in found.items()}

    def write_fit(self, c: float, fits: _Fits) -> None:
        """Write the fit with this C on all images to the places of these classes."""
        own, every = self.path.classifier(c), fits.classifier
        every.weights[:, self.classes] = self._add(own.weights).cpu()
        every.intercepts[self.classes] = self._add(own.intercepts + 1).cpu()

    def _add(self, of_combinations: Tensor) -> Tensor:
        # Half of targets 1 and -1 plus 1 is 1 for an image's combination, and 0 for the others.
        return of_combinations / 2 @ self.combinations.to(of_combinations)


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
