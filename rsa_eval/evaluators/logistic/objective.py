"""Evaluate the loss of logistic regression, its gradient and its curvature, block by block.

The objective is the mean loss + penalty |W|² / 2, where W excludes the intercepts. With penalty
1 / (C N) it is scikit-learn's C Σ loss + |W|² / 2, divided by C N.

Features stay where they are, on any device or in a file. Products with them are float32, or
float64 near a minimum; everything after the logits is float64, and a loss near zero keeps its
relative precision.
"""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK_VALUES = 2**25


@dataclass(frozen=True)
class LossTerms:
    """The loss of some images and its derivatives by their logits, float64."""

    loss: Tensor
    """Summed over the images, scalar."""
    slope: Tensor
    """First derivatives, (n, K)."""
    curvature: Tensor
    """Second derivatives by one logit each, (n, K); not negative."""
    curve: Callable[[Tensor], Tensor]
    """Multiplies a direction, (n, K), by each image's matrix of second derivatives."""


Loss = Callable[[Tensor, Tensor], LossTerms]


def softmax_loss(logits: Tensor, labels: Tensor) -> LossTerms:
    """Return the cross-entropy of classes that exclude one another.

    Args:
        logits: float64 (n, K), K > 1.
        labels: Class indices, int64 (n,).
    """
    log_probabilities = logits.log_softmax(dim=1)
    own = log_probabilities.gather(1, labels[:, None])
    probabilities = log_probabilities.exp_()
    # exp(x) - 1 loses no digits where the probability is almost one.
    slope = probabilities.scatter(1, labels[:, None], own.expm1())

    def curve(direction: Tensor) -> Tensor:
        return probabilities * (direction - (probabilities * direction).sum(dim=1, keepdim=True))

    return LossTerms(-own.sum(), slope, probabilities * (1 - probabilities), curve)


def sigmoid_loss(logits: Tensor, signs: Tensor) -> LossTerms:
    """Return the cross-entropy of independent classes, summed over them.

    Args:
        logits: float64 (n, K).
        signs: 1 (present), -1 (absent) or 0 (left out), (n, K).
    """
    signs = signs.to(logits.dtype)
    right = signs * logits
    wrong_probability = torch.sigmoid(-right) * signs.abs()
    loss = -(functional.logsigmoid(right) * signs.abs()).sum()
    curvature = wrong_probability * torch.sigmoid(right)
    return LossTerms(loss, -signs * wrong_probability, curvature, curvature.mul)


@dataclass(frozen=True)
class Point:
    """The mean loss at some coefficients, float64."""

    coefficients: Tensor
    """(D + 1, K) with the intercepts in the last row, or (D, K) without."""
    loss: float
    loss_gradient: Tensor
    """As the coefficients."""
    curvature: Tensor
    """Of the loss by the logits, the mean over the images, (K,)."""
    num_weights: int
    """D, the number of penalised rows."""

    def value(self, penalty: float) -> float:
        """Return the objective."""
        return self.loss + penalty / 2 * float(self._weights.square().sum())

    def gradient(self, penalty: float) -> Tensor:
        """Return the objective's gradient."""
        gradient = self.loss_gradient.clone()
        gradient[: self.num_weights] += penalty * self._weights
        return gradient

    @property
    def _weights(self) -> Tensor:
        return self.coefficients[: self.num_weights]


class MeanLoss:
    """The mean loss of some images, as a function of float64 coefficients.

    Args:
        features: (N, D) of any floating type, on any device or mapped from a file.
        targets: What ``loss`` takes beside the logits, one row per image.
        loss: ``softmax_loss`` or ``sigmoid_loss``.
        num_outputs: K.
        rows: Indices of the images among the features, one per target; None takes all.
        intercept: Fit an intercept per output.
        device: Where to compute; features elsewhere are brought there block by block.

    Attributes:
        centre: float64 (D,), subtracted from all features; None for as they are.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        loss: Loss,
        num_outputs: int,
        *,
        rows: Tensor | None = None,
        intercept: bool = True,
        device: torch.device | None = None,
    ) -> None:
        self.features = features
        self.rows = rows
        self.device = features.device if device is None else device
        self.targets = targets.to(self.device)
        self.loss = loss
        self.intercept = intercept
        self.shape = (features.shape[1] + intercept, num_outputs)
        self.product_dtype = torch.float32
        self.centre: Tensor | None = None
        self._centred = torch.empty(0)  # a block's memory, taken once: it is read many times

    def centred(self) -> "MeanLoss":
        """Return the loss of the same images with their mean subtracted from all features.

        The weights at the minimum stay the same if there are intercepts. Beside a large mean, the
        curvature of what distinguishes the images is of the order of rounding.
        """
        total = torch.zeros(self.features.shape[1], dtype=torch.float64, device=self.device)
        for _, block in self._blocks():
            total += block.sum(dim=0, dtype=torch.float64)
        found = copy(self)
        found.centre = (total / len(self.targets)).float().double()  # the same in either precision
        return found

    def all_features(self) -> Tensor:
        """Return the features of all images, float64."""
        features = self.features if self.rows is None else self.features[self.rows]
        features = features.to(self.device, torch.float64)
        return features if self.centre is None else features - self.centre

    def at(self, coefficients: Tensor) -> Point:
        """Evaluate loss, gradient and curvature."""
        count, width = len(self.targets), self.features.shape[1]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        gradient = torch.zeros_like(coefficients)
        curvature = torch.zeros_like(coefficients[0])
        for rows, block in self._blocks():
            terms = self.loss(self._logits(block, coefficients), self.targets[rows])
            total += terms.loss
            gradient[:width] += block.T @ terms.slope.to(block.dtype)
            if self.intercept:
                gradient[width] += terms.slope.sum(dim=0)
            curvature += terms.curvature.sum(dim=0)
        return Point(coefficients, float(total) / count, gradient / count, curvature / count, width)

    def without_features(self, point: Point) -> float:
        """Return the loss at a point's intercepts with weights of zero."""
        if self.intercept:
            constant = point.coefficients[-1]
        else:
            constant = torch.zeros_like(point.coefficients[0])
        parts = torch.split(self.targets, _BLOCK_VALUES // (4 * self.shape[1]))
        total = sum(float(self.loss(constant.repeat(len(own), 1), own).loss) for own in parts)
        return total / len(self.targets)

    def hessian_product(self, coefficients: Tensor, direction: Tensor) -> Tensor:
        """Return the Hessian at some coefficients times a direction, both (D + 1, K) or (D, K)."""
        width = self.features.shape[1]
        product = torch.zeros_like(direction)
        for rows, block in self._blocks():
            terms = self.loss(self._logits(block, coefficients), self.targets[rows])
            curved = terms.curve(self._logits(block, direction))
            product[:width] += block.T @ curved.to(block.dtype)
            if self.intercept:
                product[width] += curved.sum(dim=0)
        return product / len(self.targets)

    def hessians(self, coefficients: Tensor, num_groups: int) -> Tensor:
        """Return the blocks of the Hessian of single outputs, averaged over groups of outputs.

        Args:
            coefficients: Where.
            num_groups: G: 1, or K for one block per output.

        Returns:
            float64 (G, D + 1, D + 1) or (G, D, D): means over images and outputs of the curvature
            times x xᵀ, where an intercept's feature is 1.
        """
        width = self.features.shape[1]
        size, num_outputs = self.shape
        total = torch.zeros(num_groups, size, size, dtype=torch.float64, device=self.device)
        for rows, block in self._blocks():
            terms = self.loss(self._logits(block, coefficients), self.targets[rows])
            curvature = terms.curvature.reshape(-1, num_groups, num_outputs // num_groups).mean(
                dim=2
            )
            for own, weights in zip(total, curvature.T, strict=True):
                scaled = block * weights[:, None].to(block.dtype)
                own[:width, :width] += block.T @ scaled
                if self.intercept:
                    own[width, :width] += scaled.sum(dim=0)
                    own[width, width] += weights.sum()
        if self.intercept:
            total[:, :width, width] = total[:, width, :width]
        return total / len(self.targets)

    def _logits(self, block: Tensor, coefficients: Tensor) -> Tensor:
        rounded = coefficients.to(block.dtype)
        if not self.intercept:
            return (block @ rounded).double()
        return torch.addmm(rounded[-1], block, rounded[:-1]).double()

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of images, as rows of the targets, with their features."""
        count = max(1, _BLOCK_VALUES // (self.features.shape[1] + 4 * self.shape[1]))
        for start in range(0, len(self.targets), count):
            own = slice(start, start + count)
            block = self.features[own if self.rows is None else self.rows[own]].to(self.device)
            if self.centre is not None:
                block = block.to(torch.promote_types(block.dtype, self.product_dtype))
                if block.shape != self._centred.shape or block.dtype != self._centred.dtype:
                    self._centred = torch.empty_like(block)
                block = torch.sub(block, self.centre.to(block.dtype), out=self._centred)
            yield own, block.to(self.product_dtype)
