import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from rsa_pretrain.views.draws import JITTER_OPERATIONS, draw_views
from rsa_pretrain.views.one_image import VIEW_NAMES
from rsa_pretrain.views.settings import ViewsConfig

FOUR = VIEW_NAMES["multi_stage"]


def draws_of(images, epoch=0, seed=0, height=40, width=48, names=FOUR, **settings):
    """Parameters of some images of one size."""
    images = np.asarray(images, dtype=np.int64)
    epochs, heights, widths = (np.full(len(images), n) for n in (epoch, height, width))
    return draw_views(names, ViewsConfig(**settings), seed, epochs, images, heights, widths)


def values(draws):
    """Every parameter of both crops and colours, by name."""
    return {
        f"{kind} {prime} {name}": value
        for kind, parts in (("crop", draws.crops), ("colour", draws.colours))
        for prime, part in parts.items()
        for name, value in vars(part).items()
    }


def largest_gap(first, second):
    """Kolmogorov and Smirnov's statistic over its critical value at p = 0.001."""
    points = np.sort(np.concatenate([first, second]))
    shares = (np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (first, second))
    gap = np.abs(np.subtract(*shares)).max()
    return gap / (1.95 * math.sqrt(1 / len(first) + 1 / len(second)))


def test_draws_depend_on_seed_epoch_and_image_alone():
    """An image gets the same draws in any batch and order, whatever the generators' states."""
    whole = values(draws_of(range(50)))
    torch.manual_seed(9)
    np.random.default_rng(3).random()
    order = np.random.default_rng(1).permutation(50)
    for rows in (order[:7], order[7:]):
        part = values(draws_of(rows))
        assert part.keys() == whole.keys()
        assert all(torch.equal(part[name], whole[name][rows]) for name in whole)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"images": range(1, 501)}])
def test_other_seed_epoch_or_image_draws_anew(change):
    """The first crop's flip agrees with the other's in half of the images (four deviations)."""
    other = {"images": range(500)} | change
    agree = draws_of(range(500)).crops[""].flip == draws_of(**other).crops[""].flip
    assert abs(agree.sum() - 250) < 45


def test_the_two_crops_are_independent():
    """Areas, flips, hue and blur of v and v' are uncorrelated (four deviations)."""
    draws = draws_of(range(4000))
    first, second = (
        [
            (draws.crops[prime].height * draws.crops[prime].width).double(),
            draws.crops[prime].flip.double(),
            draws.colours[prime].hue.double(),
            draws.colours[prime].blur_sigma.double(),
        ]
        for prime in ("", "'")
    )
    for one in first:
        for other in second:
            assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(4000)


@pytest.mark.parametrize("view_set", VIEW_NAMES)
def test_view_sets_share_their_views_parameters(view_set):
    """A view's parameters are those of the four-view set; nothing else is drawn."""
    names = VIEW_NAMES[view_set]
    part, whole = values(draws_of(range(20), names=names)), values(draws_of(range(20)))
    assert all(torch.equal(part[name], whole[name]) for name in part)
    draws = draws_of([0], names=names)
    assert set(draws.crops) == {name.removeprefix("v_w").removeprefix("v_a") for name in names}
    assert set(draws.colours) == {name.removeprefix("v_a") for name in names if "a" in name}


def test_rows_are_those_of_the_images():
    """A slice of a batch's parameters is what these images get alone."""
    part, alone = draws_of(range(10)).rows(slice(3, 7)), draws_of(range(3, 7))
    assert len(part) == 4
    assert all(torch.equal(values(part)[name], alone) for name, alone in values(alone).items())


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.2, 1.0), (3 / 4, 4 / 3)),
        (375, 500, (0.2, 1.0), (3 / 4, 4 / 3)),
        (20, 200, (0.2, 1.0), (3 / 4, 4 / 3)),  # tries that do not fit: centre crops among them
        (200, 20, (0.08, 1.0), (3 / 4, 4 / 3)),
        (30, 40, (0.9, 1.0), (0.5, 0.6)),
    ],
)
def test_crops_are_distributed_as_torchvisions(height, width, scale, ratio):
    """Top, left, rows, columns and area of 2,000 crops each (Kolmogorov-Smirnov, p > 0.001)."""
    weak = {"crop_scale": scale, "crop_ratio": ratio}
    crops = draws_of(range(2000), height=height, width=width, weak=weak).crops[""]
    transform = v2.RandomResizedCrop(32, scale, ratio)
    image = torch.empty(3, height, width)
    theirs = [transform.make_params([image]) for _ in range(2000)]
    for name in ("top", "left", "height", "width"):
        ours = getattr(crops, name).numpy()
        assert largest_gap(ours, np.array([crop[name] for crop in theirs])) < 1
    areas = np.array([crop["height"] * crop["width"] for crop in theirs])
    assert largest_gap((crops.height * crops.width).numpy(), areas) < 1


def test_centre_crop_where_no_try_fits():
    """An image far too wide gives the largest crop of the allowed ratio, in its middle."""
    weak = {"crop_scale": (1.0, 1.0)}
    crops = draws_of(range(5), height=10, width=100, weak=weak).crops[""]
    assert crops.height.tolist() == [10] * 5
    assert crops.width.tolist() == [13] * 5  # 4/3 of the height
    assert crops.top.tolist() == [0] * 5
    assert crops.left.tolist() == [43] * 5


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.3, 0.4), (2.5, 3)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (3, 50), (31, 33)])
def test_crops_lie_within_the_image(height, width, ratio):
    """No crop is empty or leaves its image."""
    draws = draws_of(range(2000), height=height, width=width, weak={"crop_ratio": ratio})
    for crops in draws.crops.values():
        assert min(crops.top.min(), crops.left.min()) >= 0
        assert min(crops.height.min(), crops.width.min()) >= 1
        assert (crops.top + crops.height).max() <= height
        assert (crops.left + crops.width).max() <= width


def test_jitter_is_distributed_as_torchvisions():
    """Factors of 2,000 draws (Kolmogorov-Smirnov, p > 0.001); strengths differ to tell them."""
    strengths = {"brightness": 0.4, "contrast": 0.3, "saturation": 1.5, "hue": 0.1}
    colours = draws_of(range(2000), aggressive=strengths).colours[""]
    transform = v2.ColorJitter(**strengths)
    theirs = [transform.make_params([]) for _ in range(2000)]
    for name in JITTER_OPERATIONS:
        expected = np.array([params[f"{name}_factor"] for params in theirs])
        assert largest_gap(getattr(colours, name).numpy(), expected) < 1


def test_order_of_jitter_is_uniform():
    """Each of the 24 orders comes as often as any (chi-squared, p > 0.001)."""
    order = draws_of(range(4800)).colours["'"].order
    assert torch.equal(order.sort(dim=1).values, torch.arange(4).expand(4800, 4))
    counts = np.unique(order.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 49.7


def test_frequencies_and_blur():
    """Jitter 0.8, grayscale 0.2, blur 0.5, flip 0.5 (four deviations); sigma uniform."""
    draws = draws_of(range(4000))
    colours = draws.colours[""]
    blurred = colours.blur_sigma[colours.blur_sigma > 0]
    for share, probability in (
        (colours.jitter.double().mean(), 0.8),
        (colours.grayscale.double().mean(), 0.2),
        (len(blurred) / 4000, 0.5),
        (draws.crops[""].flip.double().mean(), 0.5),
    ):
        assert abs(share - probability) < 4 * math.sqrt(probability * (1 - probability) / 4000)
    uniform = np.linspace(0.1, 2.0, 4000)
    assert largest_gap(blurred.numpy(), uniform) < 1


@pytest.mark.parametrize("probability", [0, 1])
def test_probabilities_of_0_and_1(probability):
    """Nothing, or everything, is applied to every image."""
    names = ("jitter_probability", "grayscale_probability", "blur_probability")
    settings = {
        "weak": {"flip_probability": probability},
        "aggressive": dict.fromkeys(names, probability),
    }
    draws = draws_of(range(300), **settings)
    for prime in ("", "'"):
        colours = draws.colours[prime]
        for applied in (draws.crops[prime].flip, colours.jitter, colours.grayscale):
            assert torch.equal(applied, torch.full((300,), bool(probability)))
        assert torch.equal(colours.blur_sigma > 0, torch.full((300,), bool(probability)))


def test_no_strength_is_no_change():
    """Strengths of 0 draw factors of 1 and a shift of 0."""
    still = dict.fromkeys(JITTER_OPERATIONS, 0)
    colours = draws_of(range(50), aggressive=still).colours[""]
    assert (colours.brightness == 1).all()
    assert (colours.contrast == 1).all()
    assert (colours.saturation == 1).all()
    assert (colours.hue == 0).all()
