"""Find pairs of similar 64-bit hashes, comparing all with all in bounded memory."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rsa_eval.audit.fingerprints import Hashes

RowNumbers = npt.NDArray[np.int64]

_PAIRS_AT_ONCE = 2**22  # 32 MiB of differing bits
_BITS_OF_16 = np.array([number.bit_count() for number in range(2**16)], np.uint8)


def num_differing_bits(first: Hashes, second: Hashes) -> npt.NDArray[np.uint8]:
    """Return the Hamming distance of hashes, with broadcasting."""
    differing = first ^ second
    if hasattr(np, "bitwise_count"):  # NumPy 2.0 and later
        return np.asarray(np.bitwise_count(differing), np.uint8)
    return count_by_table(differing)


def count_by_table(words: Hashes) -> npt.NDArray[np.uint8]:
    """Count the 1 bits of each 64-bit word, for NumPy before 2.0."""
    quarters = np.ascontiguousarray(words)[..., None].view(np.uint16)
    return np.asarray(_BITS_OF_16[quarters].sum(axis=-1), np.uint8)


def near_pairs(
    queries: Hashes, bank: Hashes, most_bits: int, pairs_at_once: int = _PAIRS_AT_ONCE
) -> Iterator[tuple[RowNumbers, RowNumbers]]:
    """Find all pairs of hashes that differ in few bits.

    Args:
        queries: Hashes, (N,).
        bank: Hashes, (M,).
        most_bits: Largest Hamming distance of a pair.
        pairs_at_once: Number of pairs in memory.

    Yields:
        Rows of the queries and of the bank, by query, then by bank row within a chunk of both.
    """
    num_rows = min(len(bank), pairs_at_once)
    num_queries = max(1, pairs_at_once // max(1, num_rows))
    for start in range(0, len(queries), num_queries):
        some = queries[start : start + num_queries, None]
        for first in range(0, len(bank), max(1, num_rows)):
            distances = num_differing_bits(some, bank[None, first : first + num_rows])
            found, rows = np.nonzero(distances <= most_bits)
            if len(found):
                yield found + start, rows + first
