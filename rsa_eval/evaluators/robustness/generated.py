"""Corrupt test images by the library imagecorruptions, where no published files are at hand.

The results compare models with one another, but not with published numbers. The library
(imagecorruptions-imaug, a maintained fork of Michaelis et al. 2019) has ImageNet-C's corruptions
and their strengths. What differs from the published files:

- Other random numbers, and a motion blur that replaces ImageMagick's.
- ImageNet-C's images were then compressed as JPEG files, and these are not.
- The strengths are those for 224 pixels at every size. CIFAR-10-C and CIFAR-100-C have weaker ones:
  Gaussian noise of 0.04 to 0.10 in place of 0.08 to 0.38.
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.transforms import v2

from rsa_eval.evaluators.robustness.corrupted import CorruptedImages
from rsa_eval.evaluators.robustness.corruption_error import CORRUPTIONS, SEVERITY_LEVELS
from rsa_eval.evaluators.robustness.shifts import GENERATED
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import FileSources, rules_identity
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.versions import installed_versions

# Whose versions decide the pixels; numba draws glass blur.
_PACKAGES = ("imagecorruptions-imaug", "scikit-image", "opencv-python", "numpy", "scipy", "numba")


def generate_corrupted(test: ImageSet, geometry: v2.Transform, side: int) -> CorruptedImages:
    """Return sets that corrupt the squares of the test images when they are read.

    As for ImageNet-C, the evaluation's square is cut first. The random numbers depend on the image,
    the corruption and the severity alone.

    Args:
        test: The clean test images.
        geometry: Makes a square of an RGB image.
        side: Side of the square in pixels, at least 32.

    Raises:
        UserError: If the library is not installed.
    """
    versions = installed_versions(*_PACKAGES)
    import_extra("imagecorruptions", "shifts.generate")

    def images(corruption: str, severity: int) -> ImageSet:
        sources = _CorruptedSquares(test, geometry, corruption, severity, str(versions))
        name = f"{GENERATED.name}_{test.name}_{corruption}_{severity}"
        return ImageSet(name, sources, test.labels, test.class_names, test.rows)

    sets = {name: [images(name, severity) for severity in SEVERITY_LEVELS] for name in CORRUPTIONS}
    version = versions.get("imagecorruptions-imaug", "of unknown version")
    departure = f"corruptions by imagecorruptions {version} at {side} px (protocol: published)"
    return CorruptedImages(sets, [], [departure])


def _library() -> Any:
    """Import the library, which ships no type information."""
    return import_module("imagecorruptions")


@dataclass(frozen=True)
class _CorruptedSquares:
    """The squares of a set's images under one corruption, as the sources of another set."""

    clean: ImageSet
    geometry: v2.Transform
    corruption: str
    severity: int
    versions: str

    def __len__(self) -> int:
        return len(self.clean.sources)

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Corrupt an image."""
        image, _ = self.clean.sources.read(index)
        square = np.asarray(self.geometry(image))
        corrupt = _library().corruption_dict[self.corruption]
        return Image.fromarray(_seeded(corrupt, square, self.severity, self._seed(index))), "RGB"

    def where(self, index: int) -> str:
        """Return the clean image's name."""
        return self.clean.sources.where(index)

    def identity(self, index: int) -> bytes:
        """Return the bytes that identify the clean image, the square and the library."""
        source = self.clean.sources
        rules = rules_identity(source.rules) if isinstance(source, FileSources) else b""
        return source.identity(index) + rules + f"{self.geometry} {self.versions}".encode()

    def key(self, index: int) -> str:
        """Return the clean image's key."""
        return self.clean.sources.key(index)

    def _seed(self, index: int) -> int:
        text = f"{self.corruption} {self.severity} {self.clean.sources.key(index)}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def _seeded(
    corrupt: Callable[..., Any], square: npt.NDArray[np.uint8], severity: int, seed: int
) -> npt.NDArray[np.uint8]:
    """Corrupt an image with seeded random numbers, uint8 (S, S, 3).

    The library draws from NumPy's global generator, whose state is restored, and two corruptions
    from ones that they seed themselves.
    """
    own = {"seed": seed} if "seed" in inspect.signature(corrupt).parameters else {}
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        return np.asarray(corrupt(Image.fromarray(square), severity, **own)).astype(np.uint8)
    finally:
        np.random.set_state(before)  # noqa: NPY002
