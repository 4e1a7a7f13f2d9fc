"""Read the class of each pixel from an image file."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from rsa_eval.evaluators.segmentation.settings import IGNORED
from rsa_pretrain.data.decode import EncodedImage, named_damage, opened
from rsa_pretrain.data.stored_modes import raw_layout
from rsa_pretrain.plumbing.errors import UserError

_REMEDY = "replace the file by the published one"
_UNLABELLED = 0
# Grey levels as they are stored, or indices of a palette, whose colours mean nothing. Pillow scales
# grey levels of fewer bits to 255, and inverts those of some TIFF files.
_RAW_LAYOUTS = ("L", "P", "P;1", "P;2", "P;4")


@dataclass(frozen=True)
class MaskValues:
    """The meaning of the values in a mask's file.

    Attributes:
        num_classes: Number of classes, at most 255.
        has_unlabelled: Classes are stored from 1, and 0 is an unlabelled pixel; otherwise they are
            stored from 0, and 255 is void.
    """

    num_classes: int
    has_unlabelled: bool

    def read(self, encoded: EncodedImage) -> npt.NDArray[np.uint8]:
        """Decode a mask; palette indices are taken as they are stored.

        Args:
            encoded: The file. Losslessly compressed, with 8 bits a pixel.

        Returns:
            Class indices from 0, and 255 for ignored pixels, (H, W).

        Raises:
            UserError: If the file cannot be decoded, stores colours or deep grey levels, or has a
                value that is no class.
        """
        with (
            named_damage(encoded.where, _REMEDY),
            opened(io.BytesIO(encoded.content), encoded.where, encoded.rules) as image,
        ):
            _check_stored(image, encoded.where)
            stored: npt.NDArray[np.uint8] = np.array(image, np.uint8)
        return self._classes(stored, encoded.where)

    def _classes(self, stored: npt.NDArray[np.uint8], where: str) -> npt.NDArray[np.uint8]:
        counts = np.bincount(stored.ravel(), minlength=IGNORED + 1)
        first, last = (1, self.num_classes) if self.has_unlabelled else (0, self.num_classes - 1)
        ignored = _UNLABELLED if self.has_unlabelled else IGNORED
        known = np.zeros(IGNORED + 1, bool)
        known[first : last + 1] = True
        known[ignored] = True
        unknown = np.flatnonzero((counts > 0) & ~known)
        if len(unknown):
            raise UserError(
                f"{where} has the value {unknown[0]} in {counts[unknown[0]]:,} pixels; expected "
                f"classes {first} to {last}, and {ignored} for pixels that do not count: check "
                "masks.classes and masks.layout"
            )
        if not self.has_unlabelled:
            return stored
        return stored - np.uint8(1)  # 0 becomes 255


def _check_stored(image: Image.Image, where: str) -> None:
    """Refuse files whose values are no class indices."""
    if image.format == "JPEG":
        raise UserError(
            f"{where} is a JPEG, whose lossy compression changes classes; expected a PNG of class "
            "indices"
        )
    stored = raw_layout(image) or image.mode
    if stored not in _RAW_LAYOUTS or getattr(image, "is_animated", False):
        raise UserError(
            f"{where} is stored as {stored}; expected a PNG with the index of a class in each "
            "pixel (grey levels of 8 bits, or a palette), not its colour"
        )
