"""scikit-learn's 1,797 digits: a fixed stratified 80 % / 20 % split, as they are or scattered."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig

_SMALLEST = 0.7  # side of a scattered digit, as a share of the image's
_COUNTS: dict[AnySplit, Counts] = {"train": Counts(1_437, 10), "test": Counts(360, 10)}


def _open(config: DataConfig, split: AnySplit, *, name: str, scattered: bool) -> ImageSet:
    """Open a split, resized to the configured side.

    Scattered digits have 70 to 100 % of the side and are anywhere. Sizes and places are drawn once,
    from a fixed seed for each split, so that the set is the same everywhere.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from rsa_pretrain.data.image_set import ImageSet

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=0.2, random_state=0, stratify=bunch.target
    )
    rows = np.sort(test if split == "test" else train)
    images = [
        Image.fromarray(pixels)
        for pixels in np.round(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    ]
    side = config.image_size
    if scattered:
        generator = np.random.default_rng([split == "test"])
        grey = [_scatter(image, side, generator) for image in images]
    else:
        grey = [
            np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in images
        ]
    array = np.stack(grey)[..., None].repeat(3, axis=-1)
    names = [str(digit) for digit in range(10)]
    return ImageSet.from_array(name, array, bunch.target[rows].tolist(), names)


def _scatter(image: Image.Image, side: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return a black image of a side, (side, side), with the digit at a drawn size and place."""
    import numpy as np
    from PIL import Image

    own = int(generator.integers(round(_SMALLEST * side), side + 1))
    top, left = generator.integers(0, side - own + 1, 2)
    canvas = np.zeros((side, side), np.uint8)
    digit = image.resize((own, own), Image.Resampling.BICUBIC)
    canvas[top : top + own, left : left + own] = np.asarray(digit)
    return canvas


def _download(root: Path, url: str | None) -> None:
    """Do nothing: the images come with scikit-learn."""


DIGITS = DataSet(
    name="digits",
    label="Digits",
    # Measured on the training split at 32 px.
    normalisation=((0.3094, 0.3094, 0.3094), (0.3488, 0.3488, 0.3488)),
    open=partial(_open, name="digits", scattered=False),
    download=_download,
    counts=_COUNTS,
    location=(),
    is_pixels=True,
)

SCATTERED_DIGITS = DataSet(
    name="scattered_digits",
    label="Scattered digits",
    # Measured on the training split at 32 px.
    normalisation=((0.2232, 0.2232, 0.2232), (0.3274, 0.3274, 0.3274)),
    open=partial(_open, name="scattered_digits", scattered=True),
    download=_download,
    counts=_COUNTS,
    location=(),
    is_pixels=True,
)
