"""Find duplicates between two sets of images, or within one: exact, and nearly so.

Two images are near duplicates if one (or its mirror image) is the other's candidate, their grey
copies of 32 pixels correlate, aligned, by at least ``MIN_CORRELATION`` and, if both are large
enough, the correlation of their detail is at least ``detail.MIN_DETAIL``. Candidates are images
whose perceptual hashes differ in at most ``MOST_BITS`` of 64 bits, and each test image's neighbours
by features whose hashes differ in at most ``MOST_BITS_OF_NEIGHBOURS``.

The hash alone cannot decide. On CIFAR-10, 12 bits find 73 % of the 286 test images that Barz and
Denzler (2020, "Do We Train on Test Data?") annotated as copies, and 2,595 others; 4 bits find 17 %.
With the correlation, 211 test images are found: 131 annotated ones and 80 others, of which by eye
all but about four are mirrored, recoloured or otherwise edited copies that the annotation lacks.
The features of an RSA run of a few epochs add 24 annotated ones and 12 others, one or two of them
false. Missed are mainly copies cropped or shifted by more than a sixteenth of the image.

Images almost without contrast or detail (water, drawings enlarged from few pixels) resemble each
other at 32 pixels, whatever they show; only exact copies of them count.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rsa_eval.audit.alignment import aligned_correlation
from rsa_eval.audit.detail import MIN_DETAIL
from rsa_eval.audit.fingerprints import Fingerprints, Grey
from rsa_eval.audit.near_hashes import RowNumbers, near_pairs, num_differing_bits

MOST_BITS = 12
MOST_BITS_OF_NEIGHBOURS = 22
"""The same for neighbours by features; hashes of unrelated images differ in 32 bits on average."""
MIN_CORRELATION = 0.93
_MOST_TRIED = 5  # resembling images whose detail is compared, best first
_CONFIRMED_AT_ONCE = 8192

CompareDetail = Callable[["Duplicate"], float | None]
"""Returns the correlation of a pair's detail; None if an image is too small."""


@dataclass(frozen=True)
class Duplicate:
    """A pair of images that show the same."""

    row: int
    """Row of the image: a test image."""
    other: int
    """Row of its duplicate: the training image that is most alike."""
    is_exact: bool
    """True if all pixels are equal."""
    bits: int
    """Hamming distance of the perceptual hashes, of the mirror image if it is mirrored."""
    correlation: float
    is_mirrored: bool
    """True if the mirror image is the more alike."""
    by_features: bool = False
    """True if only the features made it a candidate."""
    detail: float | None = None
    """Correlation of the images' detail; None if they are equal or too small for it."""


def find_duplicates(
    images: Fingerprints,
    bank: Fingerprints | None,
    candidates: RowNumbers | None = None,
    compare_detail: CompareDetail | None = None,
) -> list[Duplicate]:
    """Find each image's best duplicate.

    Args:
        images: Test images.
        bank: Training images; None compares the images with each other, each pair once, the
            earlier image being the duplicate of the later one.
        candidates: Further pairs to compare, rows of ``images`` and of the bank, (P, 2).
        compare_detail: Compares the detail of a resembling pair; None to judge by 32 pixels.

    Returns:
        At most one for each image, in the order of the images.
    """
    within = bank is None
    bank = images if bank is None else bank
    found = {duplicate.row: duplicate for duplicate in _equal(images, bank, within)}
    resembling: dict[int, list[Duplicate]] = {}
    for duplicate in _resembling(images, bank, candidates, within):
        if duplicate.row not in found:
            best = [*resembling.get(duplicate.row, ()), duplicate]
            best.sort(key=lambda one: -one.correlation)
            resembling[duplicate.row] = best[:_MOST_TRIED]
    for row, some in resembling.items():
        chosen = _first_copy(some, compare_detail)
        if chosen is not None:
            found[row] = chosen
    return [found[row] for row in sorted(found)]


def _first_copy(
    resembling: Sequence[Duplicate], compare_detail: CompareDetail | None
) -> Duplicate | None:
    for duplicate in resembling:
        detail = None if compare_detail is None else compare_detail(duplicate)
        if detail is None or detail >= MIN_DETAIL:
            return replace(duplicate, detail=detail)
    return None


def _equal(images: Fingerprints, bank: Fingerprints, within: bool) -> Iterator[Duplicate]:
    places: dict[bytes, int] = {}
    if not within:
        for row, digest in enumerate(bank.digests):
            places.setdefault(digest, row)
    for row, digest in enumerate(images.digests):
        if digest in places:
            yield Duplicate(row, places[digest], True, 0, 1.0, False)
        elif within:
            places[digest] = row


def _resembling(
    images: Fingerprints, bank: Fingerprints, candidates: RowNumbers | None, within: bool
) -> Iterator[Duplicate]:
    for is_mirrored, hashes in ((False, images.hashes), (True, images.mirrored)):
        grey = images.grey[:, :, ::-1] if is_mirrored else images.grey
        for rows, others in _pairs(hashes, bank, candidates):
            kept = images.is_rich[rows] & bank.is_rich[others] & ((others < rows) | (not within))
            yield from _confirmed((rows[kept], others[kept]), (hashes, grey), bank, is_mirrored)


def _pairs(
    hashes: npt.NDArray[np.uint64], bank: Fingerprints, candidates: RowNumbers | None
) -> Iterator[tuple[RowNumbers, RowNumbers]]:
    yield from near_pairs(hashes, bank.hashes, MOST_BITS)
    if candidates is not None and len(candidates):
        yield candidates[:, 0], candidates[:, 1]


def _confirmed(
    pairs: tuple[RowNumbers, RowNumbers],
    own: tuple[npt.NDArray[np.uint64], Grey],
    bank: Fingerprints,
    is_mirrored: bool,
) -> Iterator[Duplicate]:
    """Yield the pairs whose grey copies correlate."""
    hashes, grey = own
    for start in range(0, len(pairs[0]), _CONFIRMED_AT_ONCE):
        rows, others = (side[start : start + _CONFIRMED_AT_ONCE] for side in pairs)
        correlations = aligned_correlation(grey[rows], bank.grey[others])
        bits = num_differing_bits(hashes[rows], bank.hashes[others])
        is_copy = (correlations >= MIN_CORRELATION) & (bits <= MOST_BITS_OF_NEIGHBOURS)
        for place in np.flatnonzero(is_copy).tolist():
            yield Duplicate(
                row=int(rows[place]),
                other=int(others[place]),
                is_exact=False,
                bits=int(bits[place]),
                correlation=float(correlations[place]),
                is_mirrored=is_mirrored,
                by_features=bool(bits[place] > MOST_BITS),
            )


def num_exact(found: Sequence[Duplicate]) -> int:
    """Count the exact copies."""
    return sum(duplicate.is_exact for duplicate in found)
