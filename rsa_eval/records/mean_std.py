"""Summarise repeated measurements by mean and standard deviation."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class MeanStd:
    """Summary of repeated measurements, in their unit."""

    mean: float
    """Arithmetic mean."""
    std: float | None
    """Sample standard deviation (divisor n - 1); None for a single value."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise at least one value.

        Raises:
            ValueError: If there is none.
        """
        if not values:
            raise ValueError("found no values to average; expected at least one")
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(mean=statistics.mean(values), std=std)
