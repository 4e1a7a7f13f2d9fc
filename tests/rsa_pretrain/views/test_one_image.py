import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from rsa_pretrain.views.one_image import VIEW_NAMES, GaussianBlur, Views, to_normalised_tensor
from rsa_pretrain.views.settings import ViewsConfig

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NO_COLOUR = {"jitter_probability": 0, "grayscale_probability": 0, "blur_probability": 0}


def photo(size=(48, 40)):
    """A random RGB image, width x height."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def views_of(**settings):
    """RSA's four views at 32 px."""
    return Views("multi_stage", ViewsConfig(**settings), 32, MEAN, STD)


def test_aggressive_view_shows_its_weak_views_crop_and_flip():
    """With the colour operations off each aggressive view equals its weak view bitwise."""
    maker = views_of(aggressive=NO_COLOUR)
    for _ in range(10):
        aggressive, aggressive_prime, weak, weak_prime = maker(photo())
        assert torch.equal(aggressive, weak)
        assert torch.equal(aggressive_prime, weak_prime)
        assert not torch.equal(weak, weak_prime)


def test_aggressive_view_is_made_from_the_weak_views_pixels():
    """Grayscale alone, always on: the aggressive view is its weak view's luma."""
    maker = views_of(aggressive=NO_COLOUR | {"grayscale_probability": 1})
    aggressive, aggressive_prime, weak, weak_prime = maker.pixels(photo())
    for made, source in ((aggressive, weak), (aggressive_prime, weak_prime)):
        expected = np.asarray(source.convert("L"), dtype=int)
        channels = np.asarray(made, dtype=int)
        assert np.abs(channels - expected[..., None]).max() <= 1  # rounding of the luma weights


def test_weak_views_are_not_coloured():
    """A weak view of a constant image keeps its colour, whatever the aggressive one does."""
    image = Image.new("RGB", (40, 40), (200, 30, 90))
    for _ in range(10):
        _, _, weak, weak_prime = views_of().pixels(image)
        assert weak.getcolors() == [(32 * 32, (200, 30, 90))]
        assert weak_prime.getcolors() == [(32 * 32, (200, 30, 90))]


def test_aggressive_views_are_coloured_independently():
    """The two aggressive views of a constant image differ from it and from each other."""
    image = Image.new("RGB", (40, 40), (200, 30, 90))
    jitter = {"jitter_probability": 1, "grayscale_probability": 0, "blur_probability": 0}
    aggressive, aggressive_prime, *_ = views_of(aggressive=jitter).pixels(image)
    assert aggressive.getpixel((0, 0)) != (200, 30, 90)
    assert aggressive.getpixel((0, 0)) != aggressive_prime.getpixel((0, 0))


def test_flip_frequency():
    """Half of the weak views are mirrored (binomial, 400 draws, four standard deviations)."""
    gradient = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    maker = views_of(aggressive=NO_COLOUR)
    weak = [maker.pixels(Image.fromarray(gradient))[2] for _ in range(400)]
    mirrored = sum(view.getpixel((0, 16)) > view.getpixel((31, 16)) for view in weak)
    assert abs(mirrored - 200) < 40


def test_normalisation_by_hand():
    """(pixel / 255 - mean) / std, channel by channel, RGB."""
    tensor = to_normalised_tensor(MEAN, STD)(Image.new("RGB", (2, 2), (255, 0, 51)))
    expected = [(1 - 0.4) / 0.2, (0 - 0.5) / 0.25, (0.2 - 0.6) / 0.3]
    assert tensor.dtype == torch.float32
    assert tensor.shape == (3, 2, 2)
    assert tensor[:, 0, 0].tolist() == pytest.approx(expected, rel=1e-6)


def test_blur_is_pillows_with_a_radius_in_range():
    """A fixed range reproduces Pillow's filter exactly."""
    blurred = GaussianBlur((1.3, 1.3))(photo())
    # torch draws float32, so the radius is 1.3 to seven digits.
    radius = torch.tensor(1.3).item()
    expected = photo().filter(ImageFilter.GaussianBlur(radius))
    assert np.array_equal(np.asarray(blurred), np.asarray(expected))


def test_draws_depend_on_the_seed_alone():
    """The same generator state gives the same four views."""
    maker = views_of()
    torch.manual_seed(3)
    first = maker(photo())
    torch.manual_seed(3)
    second = maker(photo())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("view_set", VIEW_NAMES)
def test_view_sets_are_parts_of_the_multi_stage_one(view_set):
    """With colour off a view set's views are crops of the weak distribution, as many as named."""
    views = Views(view_set, ViewsConfig(aggressive=NO_COLOUR), 32, MEAN, STD)
    assert len(views(photo())) == len(VIEW_NAMES[view_set])
    torch.manual_seed(1)
    drawn = dict(zip(VIEW_NAMES[view_set], views(photo()), strict=True))
    torch.manual_seed(1)
    four = dict(
        zip(VIEW_NAMES["multi_stage"], views_of(aggressive=NO_COLOUR)(photo()), strict=True)
    )
    first = "v_a" if "v_a" in drawn else "v_w"
    assert torch.equal(drawn[first], four[first])


def test_one_aggressive_and_one_weak_view():
    """Of a constant image the first view changes colour and the second does not."""
    image = Image.new("RGB", (40, 40), (200, 30, 90))
    jitter = {"jitter_probability": 1, "grayscale_probability": 0, "blur_probability": 0}
    views = Views("aggressive_weak", ViewsConfig(aggressive=jitter), 32, MEAN, STD)
    aggressive, weak = views.pixels(image)
    assert aggressive.getpixel((0, 0)) != (200, 30, 90)
    assert weak.getcolors() == [(32 * 32, (200, 30, 90))]
