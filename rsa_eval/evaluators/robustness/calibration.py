"""Compare a classifier's confidence with its accuracy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose confidence is above ``low`` and at most ``high``."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean of the top probability in percent; None without images."""
    top1: float | None
    """Accuracy in percent; None without images."""


@dataclass(frozen=True)
class Calibration:
    """A classifier's calibration error and the bins it comes from."""

    error: float
    """Expected calibration error in percent."""
    bins: list[ConfidenceBin]


def calibration_error(
    confidences: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], num_bins: int
) -> Calibration:
    """Return the expected calibration error over bins of equal width.

    Guo et al. 2017, Eq. 3: the gap between accuracy and mean confidence, averaged over the images.
    A bin contains its upper bound and not its lower one.

    Args:
        confidences: Probability of the predicted class, in [0, 1], (N,).
        right: Whether the prediction is right, (N,).
        num_bins: Number of bins, at least 1.

    Raises:
        ValueError: If there is no image, the lengths differ, or a confidence is no probability.
    """
    if len(confidences) == 0 or confidences.shape != right.shape:
        raise ValueError(f"found {confidences.shape} confidences and {right.shape} outcomes")
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError("a confidence is not in [0, 1]")
    edges = np.linspace(0, 1, num_bins + 1)
    places = np.maximum(np.searchsorted(edges, confidences, side="left") - 1, 0)
    bins, gap = [], 0.0
    for place in range(num_bins):
        own = places == place
        count = int(own.sum())
        if count:
            confidence, top1 = (100 * float(each[own].mean()) for each in (confidences, right))
            gap += count * abs(top1 - confidence)
        bins.append(
            ConfidenceBin(
                low=float(edges[place]),
                high=float(edges[place + 1]),
                count=count,
                confidence=confidence if count else None,
                top1=top1 if count else None,
            )
        )
    return Calibration(gap / len(confidences), bins)
