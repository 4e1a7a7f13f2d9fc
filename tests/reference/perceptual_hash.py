"""pHash as Zauner (2010) writes it, one coefficient at a time."""

import math
from collections.abc import Sequence


def phash(grey: Sequence[Sequence[float]]) -> int:
    """Return the 64-bit hash of a 32×32 grey image, the first frequency in the highest bit."""
    coefficients = [
        sum(
            grey[y][x]
            * math.cos(math.pi * (2 * y + 1) * down / 64)
            * math.cos(math.pi * (2 * x + 1) * across / 64)
            for y in range(32)
            for x in range(32)
        )
        for down in range(1, 9)
        for across in range(1, 9)
    ]
    middle = sorted(coefficients)[31:33]
    median = sum(middle) / 2
    return int("".join("1" if value > median else "0" for value in coefficients), 2)
