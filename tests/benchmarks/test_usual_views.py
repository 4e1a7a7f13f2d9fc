"""The baseline of the views does what the paper's users do."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.usual_views import PillowBlur, UsualViews

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture
def photo():
    """Smooth noise, 40 x 30."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    return Image.fromarray(pixels).resize((40, 30))


def pixels_of(view):
    """A view before normalisation, in [0, 1]."""
    return view * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def test_it_has_the_papers_parameters():
    """t_w crops a fifth to all and flips half; t_a has MoCo v2's jitter, grayscale and blur."""
    views = UsualViews(16, MEAN, STD)
    crop, flip = views.weak.transforms
    assert (crop.size, tuple(crop.scale)) == ((16, 16), (0.2, 1.0))
    assert tuple(crop.ratio) == pytest.approx((3 / 4, 4 / 3))
    assert crop.interpolation is transforms.InterpolationMode.BILINEAR
    assert flip.p == 0.5
    jittered, grayscale, blurred = views.aggressive.transforms
    (jitter,), (blur,) = jittered.transforms, blurred.transforms
    for strength in (jitter.brightness, jitter.contrast, jitter.saturation):
        assert tuple(strength) == pytest.approx((0.6, 1.4))
    assert tuple(jitter.hue) == pytest.approx((-0.1, 0.1))
    assert (blur.lowest, blur.highest) == (0.1, 2.0)
    assert (jittered.p, grayscale.p, blurred.p) == (0.8, 0.2, 0.5)


def test_the_views_are_four_in_the_methods_order(photo):
    """Two aggressive ones, then the weak ones that they start from."""
    random.seed(0)
    views = UsualViews(16, MEAN, STD)
    views.aggressive = transforms.Grayscale(3)  # a change that can be recognised
    v_a, v_a_prime, v_w, v_w_prime = views(photo)
    assert not torch.equal(v_w, v_w_prime)
    for aggressive, weak in ((v_a, v_w), (v_a_prime, v_w_prime)):
        assert aggressive.shape == weak.shape == (3, 16, 16)
        as_image = transforms.ToPILImage()(pixels_of(weak))
        gray = transforms.ToTensor()(as_image.convert("L")).expand(3, -1, -1)
        torch.testing.assert_close(pixels_of(aggressive), gray, atol=1.1 / 255, rtol=0)


def test_views_are_normalised():
    """White comes out as (1 - mean) / std in the weak views."""
    *_, v_w, v_w_prime = UsualViews(16, MEAN, STD)(Image.new("RGB", (40, 30), "white"))
    expected = ((1 - torch.tensor(MEAN)) / torch.tensor(STD))[:, None, None].expand(3, 16, 16)
    torch.testing.assert_close(v_w, expected)
    torch.testing.assert_close(v_w_prime, expected)


def test_the_blur_is_pillows(photo):
    """Its radius is drawn between the bounds."""
    blurred = PillowBlur(1.0, 1.0)(photo)
    assert blurred != photo
    assert blurred != PillowBlur(2.0, 2.0)(photo)
