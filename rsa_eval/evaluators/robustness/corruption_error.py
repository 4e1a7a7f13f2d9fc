"""Average errors over corruptions and severities (Hendrycks & Dietterich 2019)."""

from collections.abc import Mapping, Sequence

import numpy as np

SEVERITY_LEVELS = (1, 2, 3, 4, 5)

# Errors of AlexNet on ImageNet-C in percent, averaged over the severities: those of ImageNet-C's
# authors (github.com/hendrycks/robustness), as imagenet.py of AugMix (Hendrycks et al. 2020) states
# them.
ALEXNET_ERRORS = {
    "gaussian_noise": 88.6428,
    "shot_noise": 89.4468,
    "impulse_noise": 92.2640,
    "defocus_blur": 81.9880,
    "glass_blur": 82.6268,
    "motion_blur": 78.5948,
    "zoom_blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic_transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg_compression": 60.6500,
}
"""Baseline of ImageNet-C: percent by corruption, averaged over the severities."""

CORRUPTIONS = tuple(ALEXNET_ERRORS)
"""The 15 corruptions that count."""
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Published beside them, for choosing settings."""

Errors = Mapping[str, Sequence[float]]
"""Top-1 error in percent by corruption, one number per severity."""


def relative_error(errors: Sequence[float], baseline: float) -> float:
    """Return a corruption error in percent: the errors' sum over that of the baseline.

    Hendrycks & Dietterich 2019, Section 4.

    Args:
        errors: Top-1 error per severity.
        baseline: The baseline's error averaged over as many severities, in the same unit.
    """
    return 100 * float(np.sum(errors)) / (len(errors) * baseline)


def mean_relative_error(errors: Errors, baseline: Mapping[str, float]) -> float:
    """Return the mean corruption error (mCE) in percent over the baseline's corruptions.

    Hendrycks & Dietterich 2019, Section 4. It exceeds 100 for a classifier that is worse than
    the baseline.

    Args:
        errors: Includes every corruption of the baseline.
        baseline: The baseline's error by corruption, averaged over the severities.
    """
    return float(np.mean([relative_error(errors[name], own) for name, own in baseline.items()]))


def mean_error(errors: Errors) -> float:
    """Return the error averaged over the 15 corruptions and all severities, in percent.

    Args:
        errors: Includes every one of ``CORRUPTIONS``.
    """
    return float(np.mean([errors[name] for name in CORRUPTIONS]))
