import numpy as np
import pytest
import torch
from PIL import Image

from rsa_eval.features.transforms import SquareTransform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_normalising_a_batch_equals_each_image(device: str) -> None:
    """Bit for bit, for all 256 levels of each channel, on a GPU as on a CPU."""
    transform = SquareTransform(16, None, "bilinear", MEAN, STD)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(2, 16, 16, 3)
    pixels = torch.cat([levels, torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)])
    before = pixels.clone()
    expected = torch.stack([transform(Image.fromarray(square.numpy())) for square in pixels])
    assert torch.equal(transform.normalised(pixels.to(device)).cpu(), expected)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize(
    ("size", "resize", "height", "width", "kept"),
    [
        (32, None, 32, 32, True),
        (32, 32, 32, 32, True),
        (32, None, 32, 40, False),
        (32, 32, 32, 40, False),
        (32, None, 40, 40, False),
        (32, 40, 40, 40, False),
        (32, 40, 32, 32, False),
    ],
)
def test_what_keeps_its_pixels_is_told(
    size: int, resize: int | None, height: int, width: int, kept: bool
) -> None:
    """A square of the right size is not resized; Pillow's geometry says the same."""
    transform = SquareTransform(size, resize, "bilinear", MEAN, STD)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    assert transform.keeps(height, width) == kept
    found = np.asarray(transform.geometry(Image.fromarray(pixels)))
    assert (found.shape == pixels.shape and np.array_equal(found, pixels)) == kept
