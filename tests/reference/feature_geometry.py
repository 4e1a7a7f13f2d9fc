"""Measures of features image by image, straight from the papers' definitions."""

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


def alpha_req(features, first=4, last=100):
    """Agrawal et al. 2022: a line through log λ over log i, weights 1 / i, ranks first to last."""
    features = np.asarray(features, np.float64)
    covariance = np.cov(features, rowvar=False)
    eigenvalues = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    ranks = range(first, min(last, len(eigenvalues), len(features) - 1) + 1)
    points = [(math.log(rank), math.log(eigenvalues[rank - 1])) for rank in ranks]
    slope, _ = np.polyfit(*zip(*points, strict=True), 1, w=[rank**-0.5 for rank in ranks])
    return -slope


def lidar(views, delta):
    """Thilak et al. 2024, Eqs. (1) to (4), over the n images of q views, (q, n, D)."""
    images = np.asarray(views, np.float64).transpose(1, 0, 2)
    count, num_views, width = images.shape
    means = [sum(image) / num_views for image in images]
    grand = sum(means) / count
    between = sum(np.outer(mean - grand, mean - grand) for mean in means) / (count - 1)
    within = delta * np.eye(width)
    for image, mean in zip(images, means, strict=True):
        for view in image:
            within += np.outer(view - mean, view - mean) / (count * (num_views - 1))
    values, vectors = np.linalg.eigh(within)
    whitening = vectors @ np.diag(values**-0.5) @ vectors.T
    found = np.linalg.eigvalsh(whitening @ between @ whitening)
    shares = [max(value, 0) / sum(found) + 1e-7 for value in found]
    return math.exp(-sum(share * math.log(share) for share in shares))


def linear_cka(first, second):
    """Kornblith et al. 2019, Eqs. (3) and (4), with linear kernels between images."""

    def hsic(one, other):
        centring = np.eye(len(one)) - 1 / len(one)
        return np.trace(one @ centring @ other @ centring) / (len(one) - 1) ** 2

    return _cka(hsic, first, second)


def unbiased_linear_cka(first, second):
    """The same with the mean over quadruples of different images, Song et al. 2007."""

    def hsic(one, other):
        terms = [
            one[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
            for i, j, q, r in itertools.permutations(range(len(one)), 4)
        ]
        return sum(terms) / len(terms)

    return _cka(hsic, first, second)


def _cka(hsic, first, second):
    kernels = [np.asarray(each, np.float64) @ np.asarray(each, np.float64).T
               for each in (first, second)]  # fmt: skip
    own = hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1])
    return hsic(*kernels) / math.sqrt(own)


def _unit(features):
    return [row / np.linalg.norm(row) for row in np.asarray(features, np.float64)]
