"""Views of images with masks, against OpenCV's definitions written as loops."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rsa_eval.evaluators.segmentation.settings import DenseProbeConfig
from rsa_eval.evaluators.segmentation.squares import (
    MaskView,
    draw_mask_view,
    resized_mask,
    resized_pixels,
    view_pair,
)


def random_pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and a mask of noise."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    mask = torch.randint(1, 9, (height, width), generator=generator, dtype=torch.uint8)
    return pixels, mask


def cubic(distance: float) -> float:
    """Keys's kernel with OpenCV's a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def literal_resize(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float64]:
    """cv2.resize with INTER_CUBIC of one channel: half-pixel centres, borders repeated."""
    height, width = pixels.shape

    def weights(length: int) -> npt.NDArray[np.float64]:
        found = np.zeros((size, length))
        for place in range(size):
            centre = (place + 0.5) * length / size - 0.5
            for near in range(math.floor(centre) - 1, math.floor(centre) + 3):
                found[place, min(max(near, 0), length - 1)] += cubic(centre - near)
        return found

    return np.clip(weights(height) @ pixels @ weights(width).T, 0, 255)


def test_images_are_resized_as_by_opencv() -> None:
    """Up and down, to half a grey level."""
    pixels, _ = random_pair(23, 37)
    for size in (16, 48):
        found = resized_pixels(pixels, size, "bicubic").numpy()
        expected = np.stack([literal_resize(channel, size) for channel in pixels.numpy()])
        assert np.abs(found - expected).max() <= 0.51
    assert resized_pixels(pixels[:, :, :23], 23, "bicubic").equal(pixels[:, :, :23])


def test_masks_are_resized_as_by_opencv() -> None:
    """INTER_NEAREST takes floor(place * ratio), exactly: place 37 of 333 is 3 of 27, not 2."""
    assert resized_mask(torch.arange(27, dtype=torch.uint8)[None], 1, 333)[0, 37] == 3
    _, mask = random_pair(23, 37)
    found = resized_mask(mask, 16, 50)
    rows = [row * 23 // 16 for row in range(16)]
    columns = [column * 37 // 50 for column in range(50)]
    assert found.tolist() == mask[rows][:, columns].tolist()


def test_nothing_drawn_changes_nothing() -> None:
    """Without flip, rotation and scale the pair stays bit for bit; a flip exchanges columns."""
    pixels, mask = random_pair(20, 30)
    same = view_pair(pixels, mask, MaskView(), "bicubic", 0)
    assert same[0].equal(pixels)
    assert same[1].equal(mask)
    flipped = view_pair(pixels, mask, MaskView(is_flipped=True), "bicubic", 0)
    assert flipped[0].equal(pixels.flip(2))
    assert flipped[1].equal(mask.flip(1))


@pytest.mark.parametrize("outside", [0, 255])
@pytest.mark.parametrize(("degrees", "scale"), [(5.0, 0.75), (-4.0, 1.25), (30.0, 1.0)])
def test_a_mask_turns_as_by_opencv(degrees: float, scale: float, outside: int) -> None:
    """getRotationMatrix2D about (W / 2, H / 2), inverted and rounded; outside is as asked for."""
    height, width = 21, 34
    _, mask = random_pair(height, width)
    alpha = scale * math.cos(math.radians(degrees))
    beta = scale * math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    matrix = np.array(
        [
            [alpha, beta, (1 - alpha) * x - beta * y],
            [-beta, alpha, beta * x + (1 - alpha) * y],
            [0, 0, 1],
        ]
    )
    inverse = np.linalg.inv(matrix)
    view = MaskView(False, degrees, scale)
    found = view_pair(mask.repeat(3, 1, 1), mask, view, "bicubic", outside)[1]
    unclear = 0
    for row in range(height):
        for column in range(width):
            source_x, source_y, _ = inverse @ (column, row, 1)
            if max(abs(source_x % 1 - 0.5), abs(source_y % 1 - 0.5)) < 1e-3:
                unclear += 1
                continue
            near = (round(source_y), round(source_x))
            inside = 0 <= near[0] < height and 0 <= near[1] < width
            assert found[row, column] == (mask[near] if inside else outside)
    assert unclear < 10


def test_an_image_turns_as_by_opencv() -> None:
    """By INTER_CUBIC, from sixteen pixels around the place that the inverse map gives."""
    height, width = 21, 34
    pixels, mask = random_pair(height, width)
    view = MaskView(False, 20.0, 1.25)
    found = view_pair(pixels, mask, view, "bicubic", 0)[0]
    cosine, sine = (part(math.radians(20)) / 1.25 for part in (math.cos, math.sin))
    for row, column in ((10, 17), (8, 12), (13, 20), (11, 9)):
        y, x = row - height / 2, column - width / 2
        source_x, source_y = cosine * x - sine * y + width / 2, sine * x + cosine * y + height / 2
        expected = sum(
            cubic(source_y - near_y) * cubic(source_x - near_x) * pixels[:, near_y, near_x].double()
            for near_y in range(math.floor(source_y) - 1, math.floor(source_y) + 3)
            for near_x in range(math.floor(source_x) - 1, math.floor(source_x) + 3)
        )
        assert isinstance(expected, torch.Tensor)
        assert (found[:, row, column] - expected.clamp(0, 255)).abs().max() <= 0.51


def test_an_image_turns_with_its_mask() -> None:
    """Of an image whose grey level is its mask's, smooth parts agree afterwards."""
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[8:30, 12:34] = 200
    view = MaskView(True, 20.0, 0.9)
    pixels, turned = view_pair(mask.repeat(3, 1, 1), mask, view, "bicubic", 0)
    agrees = (pixels[0].int() - turned.int()).abs() <= 100
    assert agrees.float().mean() > 0.97


def test_drawn_views_fill_their_ranges() -> None:
    """Half of them are flipped; angles and scales reach the ends of their ranges, and no more."""
    torch.manual_seed(0)
    probe = DenseProbeConfig()
    views = [draw_mask_view(probe) for _ in range(2_000)]
    assert 0.45 < np.mean([view.is_flipped for view in views]) < 0.55
    degrees, scales = ([getattr(view, name) for view in views] for name in ("degrees", "scale"))
    assert -5 <= min(degrees) < -4.9 < 4.9 < max(degrees) <= 5
    assert 0.75 <= min(scales) < 0.76 < 1.24 < max(scales) <= 1.25
