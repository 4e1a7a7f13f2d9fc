"""Fit targets by ridge regression with any C, and score each image by the fit without it."""

from collections.abc import Callable, Sequence
from functools import cached_property

from torch import Tensor

from rsa_eval.evaluators.logistic.decomposition import (
    CentredFeatures,
    Decomposition,
    decompose_precisely,
    decompose_quickly,
)
from rsa_eval.evaluators.logistic.ridge_solution import RidgeSolution
from rsa_pretrain.plumbing.progress import progress_bar


class RidgeFits:
    """Ridge regression of the same targets for any C, float64.

    A decomposition that is quick serves where it is accurate, a precise one elsewhere.

    Args:
        features: (N, D), which may be mapped from a file or on a GPU.
        targets: Returns those of some of the images, float64 (n, K), on the device of their mean.
        target_mean: Mean of all, float64 (K,), on the device that computes.
    """

    def __init__(
        self, features: Tensor, targets: Callable[[slice], Tensor], target_mean: Tensor
    ) -> None:
        self._features = CentredFeatures.of(features, target_mean.device)
        self._targets, self._target_mean = targets, target_mean

    def fit(self, c: float) -> tuple[Tensor, Tensor]:
        """Return weights, (D, K), and intercepts, (K,), of the fit with this C on all images."""
        weights = (self._quick if self._quick.fits(c) else self._precise).weights(c)
        return weights, self._target_mean - self._features.mean @ weights

    def left_out(
        self, strengths: Sequence[float], measure: Callable[[Tensor, slice], Tensor]
    ) -> dict[float, list[Tensor]]:
        """Measure every image's scores by the fit on all others.

        Args:
            strengths: Values of C.
            measure: Of the scores of a block, (n, K), and the places of its images.

        Returns:
            What it returned for successive blocks, for each C that float64 resolves.
        """
        found = self._left_out(self._quick, strengths, measure)
        rest = [c for c in strengths if c not in found]
        if rest:
            found |= self._left_out(self._precise, rest, measure)
        return {c: found[c] for c in strengths if c in found}

    @cached_property
    def _quick(self) -> RidgeSolution:
        return self._solution(decompose_quickly)

    @cached_property
    def _precise(self) -> RidgeSolution:
        return self._solution(decompose_precisely)

    def _solution(self, decompose: Callable[[CentredFeatures], Decomposition]) -> RidgeSolution:
        parts = decompose(self._features)
        return RidgeSolution(self._features, parts, self._targets, self._target_mean)

    def _left_out(
        self,
        solution: RidgeSolution,
        strengths: Sequence[float],
        measure: Callable[[Tensor, slice], Tensor],
    ) -> dict[float, list[Tensor]]:
        """Measure the images' scores when left out, for each C that a solution resolves."""
        strengths = [c for c in strengths if solution.leaves_out(c)]
        found: list[list[Tensor]] = [[] for _ in strengths]
        least = [1.0] * len(strengths)
        with progress_bar(len(self._features.features), "leave one out", "img") as bar:
            for rows, features in self._features.blocks():
                for place, (scores, freedom) in enumerate(
                    solution.without(rows, features, strengths)
                ):
                    least[place] = min(least[place], freedom)
                    found[place].append(measure(scores, rows))
                bar.update(len(features))
        return {
            c: blocks
            for c, blocks, freedom in zip(strengths, found, least, strict=True)
            if solution.leaves_out(c, freedom)
        }
