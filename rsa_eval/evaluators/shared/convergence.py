"""Count scikit-learn's convergence warnings instead of showing them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sklearn.exceptions import ConvergenceWarning


@dataclass
class CutShort:
    """Number of fits that did not converge."""

    count: int = 0


@contextmanager
def counting_cut_short() -> Iterator[CutShort]:
    """Count the fits in the block that did not converge; the caller reports them.

    Other warnings are shown as usual.

    Yields:
        The count, complete after the block.
    """
    cut_short = CutShort()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield cut_short
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            cut_short.count += 1
        else:
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )
