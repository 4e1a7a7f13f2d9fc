"""Decompose centred features so that ridge regression with any C is one product.

Eigenvectors of the products of features, or of images where these are fewer, are quick to compute,
but resolve eigenvalues only to float64's precision of the largest. A singular value decomposition
of the features resolves their square roots as well as that, at several times the cost. Each states
a bound of its relative error at a C, by perturbation theory to first order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK_ROWS = 8192
# Four roundings: constants of the products and decompositions are near 1 in practice.
_EPSILON = 4 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class CentredFeatures:
    """Features without their mean, read block by block.

    Attributes:
        features: (N, D) of any floating type, perhaps mapped from a file.
        mean: float64 (D,), on the device that computes.
    """

    features: Tensor
    mean: Tensor

    @classmethod
    def of(cls, features: Tensor, device: torch.device) -> "CentredFeatures":
        """Take the mean."""
        mean = torch.zeros(features.shape[1], dtype=torch.float64, device=device)
        for _, block in cls(features, mean).blocks():
            mean = mean + block.sum(dim=0) / len(features)
        return cls(features, mean)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and their centred features, float64 (n, D)."""
        for start in range(0, len(self.features), _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, len(self.features)))
            yield rows, self.features[rows].to(self.mean) - self.mean


@dataclass(frozen=True)
class Decomposition:
    """Centred features X in coordinates in which the products of features are diagonal.

    Attributes:
        eigenvalues: Those of Xᵀ X or X Xᵀ, float64 (M,).
        basis: Without ``images`` the eigenvectors B of Xᵀ X, else Xᵀ ``images``, (D, M).
        images: Of few images, those in a complete basis of eigenvectors of X Xᵀ, each divided by
            the root of the number of its copies, (N, M); else None.
        distinct: Of few images, those that are distinct; else None.
        rounding: A bound of the error of X or, where ``is_quick``, of the products.
        is_quick: The eigenvectors are those of the products.
    """

    eigenvalues: Tensor
    basis: Tensor
    images: Tensor | None
    distinct: "DistinctImages | None"
    rounding: float
    is_quick: bool

    def error(self, c: float) -> float:
        """Bound the error of a fit with this C, and of an image's leverage, which is at most 1."""
        rank = min(len(self.eigenvalues), len(self.basis))
        return self._bound(c, self.eigenvalues.topk(rank).values)

    def relative_error(self, c: float) -> float:
        """Bound the relative error of the matrix that maps targets to residuals."""
        others = self.eigenvalues.new_zeros(1)
        return self._bound(c, others if self.images is None else self.eigenvalues)

    def _bound(self, c: float, eigenvalues: Tensor) -> float:
        size = 1 / c + (float(eigenvalues.min()) if len(eigenvalues) else 0.0)
        return _EPSILON + self.rounding / (size if self.is_quick else math.sqrt(size))


@dataclass(frozen=True)
class DistinctImages:
    """Images of which none is a copy of another.

    Attributes:
        rows: Their centred features times the root of the number of copies, float64 (n, D).
        places: Place among them of each image, (N,).
        copies: Number of copies of each, float64 (n,).
    """

    rows: Tensor
    places: Tensor
    copies: Tensor

    @classmethod
    def of(cls, features: CentredFeatures) -> "DistinctImages":
        """Find them."""
        every = torch.cat([block for _, block in features.blocks()])
        distinct, places, copies = torch.unique(
            every, dim=0, return_inverse=True, return_counts=True
        )
        weights = copies.to(distinct)
        return cls(distinct * weights.sqrt()[:, None], places, weights)

    def decomposed(self) -> Tensor:
        """Return the rows in coordinates orthogonal to the intercept's, (n - 1, D)."""
        return self._reflected(self.rows)[1:]

    def each(self, vectors: Tensor) -> Tensor:
        """Return columns in those coordinates as ``Decomposition.images``."""
        padded = self._reflected(functional.pad(vectors, (0, 0, 1, 0)))
        return (padded / self.copies.sqrt()[:, None])[self.places]

    def _reflected(self, columns: Tensor) -> Tensor:
        """Exchange the intercept's column and the first unit vector by a Householder reflection."""
        mirror = (self.copies / self.copies.sum()).sqrt()
        mirror[0] += 1
        return columns - torch.outer(mirror, mirror @ columns * (2 / mirror.square().sum()))


def decompose_quickly(features: CentredFeatures) -> Decomposition:
    """Decompose the products of features, or of images if these are fewer."""
    count, width = features.features.shape
    images = distinct = None
    if count <= width:
        distinct = DistinctImages.of(features)
        rows = distinct.decomposed()
        eigenvalues, vectors = torch.linalg.eigh(rows @ rows.T)
        basis, images = rows.T @ vectors, distinct.each(vectors)
    else:
        gram = torch.zeros(width, width, dtype=torch.float64, device=features.mean.device)
        for _, block in features.blocks():
            gram += block.T @ block
        eigenvalues, basis = torch.linalg.eigh(gram)
    eigenvalues = eigenvalues.clamp_min(0)
    rounding = _EPSILON * _largest(eigenvalues)
    return Decomposition(eigenvalues, basis, images, distinct, rounding, is_quick=True)


def decompose_precisely(features: CentredFeatures) -> Decomposition:
    """Decompose the features themselves; of many more images than features, a triangle of them."""
    count, width = features.features.shape
    if count > 2 * width:
        return _decompose_many(features)
    distinct = DistinctImages.of(features)
    rows = distinct.decomposed()
    if len(rows) > width:  # further eigenvalues are zero
        vectors, values, right = torch.linalg.svd(functional.pad(rows, (0, len(rows) - width)))
        basis = right.T[:width]
    else:
        orthogonal, triangle = torch.linalg.qr(rows.T)
        vectors, values, right = torch.linalg.svd(triangle.T)
        basis = orthogonal @ right.T
    rounding = _EPSILON * _largest(values)
    images = distinct.each(vectors)
    return Decomposition(
        values.square(), basis * values, images, distinct, rounding, is_quick=False
    )


def _largest(values: Tensor) -> float:
    """Return the largest value; 0 if there is none, as of images that are all equal."""
    return float(values.max()) if len(values) else 0.0


def _decompose_many(features: CentredFeatures) -> Decomposition:
    width = features.features.shape[1]
    triangle = torch.zeros(0, width, dtype=torch.float64, device=features.mean.device)
    for _, block in features.blocks():
        triangle = torch.linalg.qr(torch.cat([triangle, block]), mode="r").R
    _, values, right = torch.linalg.svd(triangle)
    # The mean is rounded too, which shifts all images alike.
    shift = math.sqrt(len(features.features)) * float(features.mean.norm())
    rounding = _EPSILON * math.hypot(_largest(values), shift)
    return Decomposition(values.square(), right.T, None, None, rounding, is_quick=False)
