"""RankMe, alignment and uniformity image by image, straight from the papers' definitions."""

import itertools
import math

import numpy as np


def rank_me(features):
    """Garrido et al. 2023, Eqs. (1) and (2)."""
    spectrum = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    shares = [value / sum(spectrum) + 1e-7 for value in spectrum]
    return math.exp(-sum(share * math.log(share) for share in shares))


def alignment(first, second, alpha):
    """Wang & Isola 2020, Section 4.1."""
    pairs = list(zip(_unit(first), _unit(second), strict=True))
    return sum(math.dist(one, other) ** alpha for one, other in pairs) / len(pairs)


def uniformity(features, t):
    """Wang & Isola 2020, Section 4.1, over the pairs of different images."""
    pairs = list(itertools.combinations(_unit(features), 2))
    return math.log(sum(math.exp(-t * math.dist(*pair) ** 2) for pair in pairs) / len(pairs))


def _unit(features):
    return [row / np.linalg.norm(row) for row in np.asarray(features, np.float64)]
