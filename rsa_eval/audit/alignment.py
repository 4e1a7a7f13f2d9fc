"""Compare small grey copies pixel by pixel, at the shift at which they agree best."""

import numpy as np
import numpy.typing as npt

from rsa_eval.audit.fingerprints import SIDE, Grey

_MARGIN = 2
"""Largest shift, in pixels of a copy: a sixteenth of the image."""
_AT_ONCE = 2048
_EPSILON = 1e-6

Floats = npt.NDArray[np.float32]


def aligned_correlation(first: Grey, second: Grey) -> Floats:
    """Return the largest correlation of each pair over shifts of up to two pixels, (P,).

    The middle of either copy is laid over the other, and Pearson's correlation taken: 1 for copies
    that differ in brightness and contrast only. It is 0 where a copy is of one brightness.

    Args:
        first: Grey copies, (P, 32, 32).
        second: Their partners, (P, 32, 32).
    """
    found = np.zeros(len(first), np.float32)
    for start in range(0, len(first), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        one, other = first[rows].astype(np.float32), second[rows].astype(np.float32)
        found[rows] = np.maximum(_best_shift(one, other), _best_shift(other, one))
    return found


def _best_shift(middle: Floats, whole: Floats) -> Floats:
    side = SIDE - 2 * _MARGIN
    inner = middle[:, _MARGIN : _MARGIN + side, _MARGIN : _MARGIN + side]
    inner = inner.reshape(len(inner), -1)
    inner = inner - inner.mean(axis=1, keepdims=True)
    length = np.linalg.norm(inner, axis=1)
    best = np.full(len(inner), -np.inf, np.float32)
    for top in range(2 * _MARGIN + 1):
        for left in range(2 * _MARGIN + 1):
            part = whole[:, top : top + side, left : left + side].reshape(len(inner), -1)
            part = part - part.mean(axis=1, keepdims=True)
            product = np.einsum("ij,ij->i", inner, part)
            lengths = length * np.linalg.norm(part, axis=1)
            best = np.maximum(best, product / np.maximum(lengths, _EPSILON))
    return best
