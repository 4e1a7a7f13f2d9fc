"""Average precision as PASCAL VOC defines it: at eleven points, or as an area."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import numpy.typing as npt

from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_eval.records.record import Metric, Scores
from rsa_pretrain.plumbing.errors import UserError

ELEVEN_POINTS = "mAP_11_points"
"""Name of the metric of VOC 2007, by which transfer to it is reported."""


@dataclass(frozen=True)
class Ranking:
    """Cumulative counts at each distinct score, from the highest down.

    Attributes:
        true_positives: Positives with this score or a higher one, int64 (T,).
        selected: All samples with this score or a higher one, int64 (T,).
        num_positives: All positives.
    """

    true_positives: npt.NDArray[np.int64]
    selected: npt.NDArray[np.int64]
    num_positives: int

    @property
    def best_precision(self) -> npt.NDArray[np.float64]:
        """The highest precision at each recall or a higher one, (T,)."""
        precision = self.true_positives / self.selected
        return np.maximum.accumulate(precision[::-1])[::-1]


def rank(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> Ranking:
    """Rank samples by score; equal scores share one threshold, whatever their order.

    Args:
        scores: Higher is more likely positive, (N,).
        positive: Which samples are positive, (N,).

    Raises:
        ValueError: If a score is NaN, or no sample is positive.
    """
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    if not positive.any():
        raise ValueError("average precision needs a positive sample")
    order = np.argsort(-scores, kind="stable")
    is_last_of_its_score = np.append(np.diff(scores[order]) != 0, True)
    selected = np.flatnonzero(is_last_of_its_score) + 1
    true_positives = np.cumsum(positive[order].astype(np.int64))[selected - 1]
    return Ranking(true_positives, selected, int(positive.sum()))


def area(ranking: Ranking) -> float:
    """Return the area under the precision-recall curve (VOC from 2010 on), in [0, 1].

    The precision at a recall is the best at that recall or a higher one.
    """
    gained = np.diff(ranking.true_positives, prepend=0)
    return float((gained * ranking.best_precision).sum() / ranking.num_positives)


def eleven_points(ranking: Ranking) -> float:
    """Return the mean precision at recalls 0, 0.1 … 1 (VOC 2007), in [0, 1].

    The precision at a recall is the best at that recall or a higher one.
    """
    # Compared as integers: in floating point 0.1 * 3 exceeds 3 / 10.
    tenths = 10 * ranking.true_positives
    places = np.searchsorted(tenths, ranking.num_positives * np.arange(11))
    return float(ranking.best_precision[places].mean())


@dataclass(frozen=True)
class ClassAP:
    """Average precisions of one class in percent."""

    area: float
    eleven_points: float


def average_precisions(
    scores: npt.NDArray[np.float64], truth: Truth, class_names: Sequence[str]
) -> list[ClassAP]:
    """Rank images by each class's scores, without those labelled 0 for it.

    Args:
        scores: Score of each image for each class, (N, C).
        truth: 1, -1 or 0 for each class, (N, C).
        class_names: Names of the classes.

    Raises:
        UserError: If a class has no positive image.
    """
    found = []
    for its_scores, name, own in zip(scores.T, class_names, truth.T, strict=True):
        known = own != 0
        if not (own == 1).any():
            raise UserError(
                f"no test image is of class '{name}', so its AP is undefined; add one, or remove "
                "the class from training and test"
            )
        ranking = rank(its_scores[known], own[known] == 1)
        found.append(ClassAP(100 * area(ranking), 100 * eleven_points(ranking)))
    return found


def mean_precisions(found: Sequence[ClassAP]) -> dict[str, Metric]:
    """Return the means over the classes as metrics of a record."""
    return {
        "mAP": Metric(value=mean(each.area for each in found), unit="%"),
        ELEVEN_POINTS: Metric(value=mean(each.eleven_points for each in found), unit="%"),
    }


def ranking_scores(
    scores: npt.NDArray[np.float64], truth: Truth, class_names: Sequence[str]
) -> Scores:
    """Return both mean average precisions, led by that of eleven points, and each class's.

    Args:
        scores: As for ``average_precisions``.
        truth: As for ``average_precisions``.
        class_names: As for ``average_precisions``.

    Raises:
        UserError: If a class has no positive image.
    """
    found = average_precisions(scores, truth, class_names)
    classes = [
        {"class": name, "AP": own.area, "AP_11_points": own.eleven_points}
        for name, own in zip(class_names, found, strict=True)
    ]
    return Scores(
        metrics=mean_precisions(found),
        headline=ELEVEN_POINTS,
        num_samples=len(truth),
        details={"classes": classes},
        predictions=RankingPredictions(scores, truth),
    )
