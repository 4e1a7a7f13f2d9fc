"""Reduce images to fingerprints: a digest of the pixels, a perceptual hash and a small grey copy.

The hash is Zauner's pHash (2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", Section 3.2): the image in grey at 32×32 pixels, its DCT-II, and of the 8×8 lowest
frequencies without the constant ones, which of them exceed their median. Departure: the image is
reduced by Pillow's antialiased bilinear filter, which takes the place of the 7×7 mean.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import PixelSources
from rsa_pretrain.plumbing.progress import progress_bar

SIDE = 32
"""Side of the grey copies, in pixels."""
MIN_CONTRAST = 8.0
"""Standard deviation, of 256 grey levels, of an image that is known by its copy."""
MIN_DETAIL_SHARE = 0.08
"""Share of its amplitude outside the 12×12 lowest frequencies: at least 0.09 in test images of
CIFAR-10, EuroSAT and clothing_mini, and at most 0.072 in digits enlarged from 8 pixels."""
_COARSE = 12
_FREQUENCIES = 8
_AT_ONCE = 1024

Hashes = npt.NDArray[np.uint64]
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of N images."""

    digests: list[bytes]
    """SHA-256 of each image's size and RGB pixels."""
    hashes: Hashes
    """pHash, (N,)."""
    mirrored: Hashes
    """pHash of the image mirrored left to right, (N,)."""
    grey: Grey
    """Grey copies, (N, 32, 32)."""
    is_rich: npt.NDArray[np.bool_]
    """True for images with contrast and detail enough to be known by their grey copy, (N,)."""

    def __len__(self) -> int:
        return len(self.digests)


def fingerprint_images(images: ImageSet, label: str) -> Fingerprints:
    """Read every image once; 1 KiB per image is kept.

    Args:
        images: At least one image.
        label: Title of the progress bar.

    Raises:
        UserError: If an image cannot be decoded.
    """
    digests: list[bytes] = []
    grey = np.empty((len(images), SIDE, SIDE), np.uint8)
    with progress_bar(len(images), label, "image") as bar:
        for start, (own, copies) in _batches(images):
            digests += own
            grey[start : start + len(own)] = copies
            bar.update(len(own))
    hashes, mirrored = hash_grey(grey)
    return Fingerprints(digests, hashes, mirrored, grey, has_detail(grey))


_Batch = tuple[list[bytes], Grey]


def _batches(images: ImageSet) -> Iterator[tuple[int, _Batch]]:
    starts = range(0, len(images), _AT_ONCE)
    if isinstance(images.sources, PixelSources):
        for start in starts:
            chosen = images.rows[start : start + _AT_ONCE]
            yield start, _of_pixels(images.sources.array(chosen))
        return
    # Pillow decodes and resizes without the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in starts:
            rows = range(start, min(start + _AT_ONCE, len(images)))
            found = list(pool.map(lambda row: _of_image(images[row]), rows))
            yield start, ([digest for digest, _ in found], np.stack([copy for _, copy in found]))


def _of_image(image: Image.Image) -> tuple[bytes, Grey]:
    return _digest(image.height, image.width, image.tobytes()), grey_copy(image)


def _of_pixels(pixels: npt.NDArray[np.uint8]) -> _Batch:
    height, width = pixels.shape[1:3]
    digests = [_digest(height, width, one.tobytes()) for one in pixels]
    if (height, width) == (SIDE, SIDE):
        # Pillow's integer luma, for all images at once.
        luma = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
        return digests, ((luma + 0x8000) >> 16).astype(np.uint8)
    return digests, np.stack([grey_copy(Image.fromarray(one)) for one in pixels])


def _digest(height: int, width: int, pixels: bytes) -> bytes:
    return hashlib.sha256(f"{height}x{width} ".encode() + pixels).digest()


def grey_copy(image: Image.Image) -> Grey:
    """Return an RGB image in grey at 32×32 pixels, uint8; its aspect ratio is lost."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def hash_grey(grey: Grey) -> tuple[Hashes, Hashes]:
    """Return the pHash of grey copies, (N, 32, 32), and that of their mirror images.

    Mirroring changes the sign of the odd horizontal frequencies, so it needs no second transform.
    """
    frequency = np.arange(1, _FREQUENCIES + 1, dtype=np.int64)
    cosines = _cosines(frequency)
    mirror = (-1.0) ** frequency
    hashes, mirrored = np.empty((2, len(grey)), np.uint64)
    for start in range(0, len(grey), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        spectrum = cosines @ grey[rows].astype(np.float64) @ cosines.T
        hashes[rows], mirrored[rows] = _above_median(spectrum), _above_median(spectrum * mirror)
    return hashes, mirrored


def _cosines(frequency: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return rows of the DCT-II, not normalised, (F, 32)."""
    place = 2 * np.arange(SIDE) + 1
    return np.asarray(np.cos(np.pi / (2 * SIDE) * frequency[:, None] * place[None, :]))


def has_detail(grey: Grey) -> npt.NDArray[np.bool_]:
    """Return which grey copies, (N, 32, 32), have ``MIN_CONTRAST`` and ``MIN_DETAIL_SHARE``."""
    frequency = np.arange(_COARSE, dtype=np.int64)
    scale = np.full((_COARSE, 1), np.sqrt(2 / SIDE))
    scale[0] = np.sqrt(1 / SIDE)
    cosines = scale * _cosines(frequency)
    found = np.empty(len(grey), np.bool_)
    for start in range(0, len(grey), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        copies = grey[rows].astype(np.float64)
        copies -= copies.mean(axis=(1, 2), keepdims=True)
        energy = (copies**2).sum(axis=(1, 2))
        coarse = ((cosines @ copies @ cosines.T) ** 2).sum(axis=(1, 2))
        share = np.sqrt(np.maximum(energy - coarse, 0) / np.maximum(energy, 1e-9))
        has_contrast = np.sqrt(energy) / SIDE >= MIN_CONTRAST
        found[rows] = has_contrast & (share >= MIN_DETAIL_SHARE)
    return found


def _above_median(spectrum: npt.NDArray[np.float64]) -> Hashes:
    """Return 64 bits for each spectrum, (N, 8, 8): 1 where it exceeds its median."""
    flat = spectrum.reshape(len(spectrum), -1)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]
