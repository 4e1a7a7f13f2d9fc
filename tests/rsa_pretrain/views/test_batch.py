import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from rsa_pretrain.views.batch import BatchedViews, resized_crops
from rsa_pretrain.views.blur import blur_radius, gaussian_blur
from rsa_pretrain.views.colours import adjust_hue_, blend_, luma
from rsa_pretrain.views.draws import JITTER_OPERATIONS, CropDraws, draw_views
from rsa_pretrain.views.one_image import VIEW_NAMES, Views
from rsa_pretrain.views.plan import resize_table
from rsa_pretrain.views.settings import ViewsConfig

FOUR = VIEW_NAMES["multi_stage"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
ADJUST = [getattr(functional, f"adjust_{name}") for name in JITTER_OPERATIONS]


def images_of(count, height=32, width=32):
    """Random RGB images: noise over smooth colours, with gray, black and white parts."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = functional.resize(coarse, [height, width])
    noise = torch.rand(count, 3, height, width, generator=generator) - 0.5
    images = ((smooth + 0.3 * noise).clamp(0, 1) * 255).round().to(torch.uint8)
    images[:, :, : height // 8] = images[:, :1, : height // 8]
    images[:, :, -1], images[:, :, -2] = 0, 255
    return images


def floats_of(count, height=32, width=32):
    """The same as float32 in [0, 1]."""
    return images_of(count, height, width).float() / 255


def swapped(images):
    """Images as planes, (3, N, H, W), and back."""
    return images.transpose(0, 1).contiguous()


def draws_of(images, names=FOUR, epoch=0, **settings):
    """Parameters of a batch's views, for images numbered from 0."""
    count, _, height, width = images.shape
    epochs, heights, widths = (np.full(count, n) for n in (epoch, height, width))
    config = ViewsConfig(**settings)
    return draw_views(names, config, 0, epochs, np.arange(count), heights, widths)


def batched(view_set="multi_stage", size=32, **settings):
    """A view set on batches."""
    return BatchedViews(view_set, ViewsConfig(**settings), size, MEAN, STD)


def blurred(image, sigma, radius):
    """Blur by torchvision, with the outermost pixels repeated beyond the borders."""
    padded = functional.pad(image, [radius] * 4, padding_mode="edge")
    wide = functional.gaussian_blur(padded, [2 * radius + 1] * 2, [sigma] * 2)
    return wide[..., radius:-radius, radius:-radius]


def composed(image, draws, row, prime, size):
    """One image's weak and aggressive view by torchvision's functions; float (3, S, S)."""
    crop, colour = draws.crops[prime], draws.colours[prime]
    box = [int(getattr(crop, name)[row]) for name in ("top", "left", "height", "width")]
    weak = functional.resized_crop(image, *box, [size, size], antialias=True)
    weak = functional.hflip(weak) if crop.flip[row] else weak
    view = weak
    if colour.jitter[row]:
        for index in colour.order[row]:
            factor = getattr(colour, JITTER_OPERATIONS[index])[row].item()
            view = ADJUST[index](view, factor)
    if colour.grayscale[row]:
        view = functional.rgb_to_grayscale(view, 3)
    sigma = colour.blur_sigma[row].item()
    if sigma and isinstance(view, torch.Tensor):
        view = blurred(view, sigma, blur_radius(2.0, size))
    elif sigma:
        view = view.filter(ImageFilter.GaussianBlur(sigma))
    return weak, view


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(32, 32, 32), (96, 96, 64), (20, 47, 32), (64, 30, 16), (9, 7, 33), (300, 260, 224)],
)
def test_crops_are_torchvisions(height, width, size):
    """Crop, antialiased resize and flip, shrinking and enlarging: within 2e-6 of [0, 1]."""
    images = floats_of(12, height, width)
    draws = draws_of(images).crops[""]
    ours = swapped(resized_crops(images, resize_table(draws), size))
    for row, image in enumerate(images):
        box = [int(getattr(draws, name)[row]) for name in ("top", "left", "height", "width")]
        theirs = functional.resized_crop(image, *box, [size, size], antialias=True)
        theirs = functional.hflip(theirs) if draws.flip[row] else theirs
        torch.testing.assert_close(ours[row], theirs, rtol=0, atol=2e-6)


def test_whole_image_at_its_size_is_unchanged():
    """The crop that is the image copies it bitwise, or mirrors it."""
    images = images_of(2).float()
    zero, whole = torch.tensor([0, 0]), torch.tensor([32, 32])
    crops = CropDraws(zero, zero, whole, whole, torch.tensor([False, True]))
    ours = swapped(resized_crops(images, resize_table(crops), 32))
    assert torch.equal(ours[0], images[0])
    assert torch.equal(ours[1], images[1].flip(-1))


@pytest.mark.parametrize("kind", range(3))
def test_blends_are_torchvisions(kind):
    """Brightness, contrast and saturation, factors 0 to 2.5 in one batch: within 1e-6.

    Contrast's reference is the mean of each image's own luma.
    """
    images, factors = floats_of(6), torch.tensor([0.0, 0.3, 0.9, 1.0, 1.4, 2.5])
    ours = swapped(images)
    flags = [torch.full((6,), float(kind == other)) for other in (1, 2)]
    blend_(ours, torch.stack([factors, *flags])[..., None, None])
    ours = swapped(ours)
    for result, image, factor in zip(ours, images, factors, strict=True):
        theirs = ADJUST[kind](image, factor.item())
        torch.testing.assert_close(result, theirs, rtol=0, atol=1e-6)
    assert torch.equal(ours[3], images[3])


def test_hue_is_torchvisions():
    """Shifts over the whole range, on gray, pure and mixed colours: within 2e-6."""
    shifts = torch.tensor([-0.5, -0.3, -0.1, 0.0, 1e-4, 0.1, 1 / 6, 0.5])
    images = floats_of(8)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)
    images[:, :, 4, :27] = corners.T
    ours = swapped(images)
    adjust_hue_(ours, shifts)
    ours = swapped(ours)
    for result, image, shift in zip(ours, images, shifts, strict=True):
        theirs = functional.adjust_hue(image, shift.item())
        torch.testing.assert_close(result, theirs, rtol=0, atol=2e-6)


def test_hue_leaves_gray_pixels_alone():
    """Gray, black and white pixels keep their values bitwise, whatever the shift."""
    gray = torch.linspace(0, 1, 64).view(1, 1, 8, 8).expand(3, 5, 8, 8)
    ours = gray.clone()
    adjust_hue_(ours, torch.linspace(-0.5, 0.5, 5))
    assert torch.equal(ours, gray)


def test_luma_is_torchvisions():
    """The gray of ``rgb_to_grayscale``: within 1e-6."""
    images = floats_of(3)
    theirs = functional.rgb_to_grayscale(images)[:, 0]
    torch.testing.assert_close(luma(swapped(images)), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "radius"), [(32, 6), (8, 6), (7, 6), (33, 3), (70, 12), (224, 6)])
def test_blur_is_torchvisions(size, radius):
    """Sigma from hardly any to 5 px, repeated borders, sizes off the strips: within 2e-6."""
    images, sigmas = floats_of(5, size, size), torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0])
    ours = swapped(gaussian_blur(swapped(images), sigmas, radius))
    for result, image, sigma in zip(ours, images, sigmas, strict=True):
        theirs = blurred(image, sigma.item(), radius)
        torch.testing.assert_close(result, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("count", "height", "width", "size"),
    [(70, 32, 32, 32), (12, 40, 56, 48), (12, 20, 17, 32), (2, 90, 70, 224)],
)
def test_views_are_torchvisions(count, height, width, size):
    """Whole views in their random orders, normalised: within 5e-6 of [0, 1] before the std."""
    images = images_of(count, height, width)
    draws = draws_of(images)
    views = dict(zip(FOUR, batched(size=size).from_images(images, draws), strict=True))
    for row, image in enumerate(images):
        for prime in ("", "'"):
            made = composed(image.float() / 255, draws, row, prime, size)
            for kind, theirs in zip(("w", "a"), made, strict=True):
                theirs = functional.normalize(theirs, MEAN, STD)
                ours = views[f"v_{kind}{prime}"][row]
                torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-6 / min(STD))


def test_views_are_pillows_up_to_rounding():
    """Against the operations on PIL images: weak within a grey level, aggressive 1.7 on average.

    The average is over pixels and views, that of the worst view below 5, and aggressive views are
    brighter by 0.8 to 1.4, as the settings' text has it. Pillow truncates after each
    operation, to 1/256 turn in hue; its blur repeats boxes.
    """
    images = images_of(60)
    draws = draws_of(images)
    views = dict(zip(FOUR, batched().from_images(images, draws), strict=True))
    mean, std = (torch.tensor(rgb)[:, None, None] for rgb in (MEAN, STD))
    errors, brighter = {"w": [], "a": []}, []
    for row, image in enumerate(images):
        pil = Image.fromarray(image.permute(1, 2, 0).numpy())
        for prime in ("", "'"):
            for kind, theirs in zip("wa", composed(pil, draws, row, prime, 32), strict=True):
                ours = (views[f"v_{kind}{prime}"][row] * std + mean) * 255
                error = ours - functional.pil_to_tensor(theirs)
                errors[kind].append(error.abs())
                if kind == "a":
                    brighter.append(error.mean())
    assert torch.stack(errors["w"]).max() < 1.01
    averages = torch.stack(errors["a"]).mean(dim=(1, 2, 3))
    assert averages.mean() < 1.7
    assert averages.max() < 5
    assert 0.8 < torch.stack(brighter).mean() < 1.4


def statistics(view):
    """Mean, deviation, gradient energy and colour of a view's pixels, float (3, S, S) in 0..1."""
    gradients = view.diff(dim=-1).square().mean() + view.diff(dim=-2).square().mean()
    return [view.mean(), view.std(), gradients, view.std(dim=0).mean()]


def test_both_implementations_make_views_of_one_distribution():
    """400 draws of one image by each: pixel statistics by Kolmogorov-Smirnov (p > 0.001)."""
    image = images_of(1, 40, 56)
    settings = {"aggressive": {"grayscale_probability": 0.2, "blur_probability": 0.5}}
    mean, std = (torch.tensor(rgb)[:, None, None] for rgb in (MEAN, STD))
    repeated = image.expand(400, -1, -1, -1)
    ours = batched(**settings).from_images(repeated, draws_of(repeated, **settings))
    one_by_one = Views("multi_stage", ViewsConfig(**settings), 32, MEAN, STD)
    pil = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    theirs = list(zip(*(one_by_one(pil) for _ in range(400)), strict=True))
    for our_views, their_views in zip(ours, theirs, strict=True):
        first, second = (
            np.array([statistics(view * std + mean) for view in views])
            for views in (our_views, their_views)
        )
        for one, other in zip(first.T, second.T, strict=True):
            points = np.sort(np.concatenate([one, other]))
            shares = [np.searchsorted(np.sort(x), points, side="right") / 400 for x in (one, other)]
            assert np.abs(shares[0] - shares[1]).max() < 1.95 * math.sqrt(2 / 400)


def test_views_do_not_depend_on_the_batch():
    """An image's views are the same alone, in any batch and in several blocks: within 2e-6.

    (Matrix products may round by the batch's size.)
    """
    images = images_of(300)
    maker, draws = batched(), draws_of(images)
    whole = maker.from_images(images, draws)
    torch.manual_seed(5)
    for rows in (slice(0, 1), slice(3, 20), slice(60, 300)):
        part = maker.from_images(images[rows], draws.rows(rows))
        for ours, all_views in zip(part, whole, strict=True):
            torch.testing.assert_close(ours, all_views[rows], rtol=0, atol=2e-6 / min(STD))


def test_views_leave_images_and_generator_alone():
    """Neither the images nor the default generator's state change."""
    images = images_of(40)
    before, state = images.clone(), torch.get_rng_state()
    batched().from_images(images, draws_of(images))
    batched().from_crops({"": images, "'": images}, draws_of(images))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("view_set", VIEW_NAMES)
def test_view_sets_are_parts_of_the_multi_stage_one(view_set):
    """Each view of a set equals the four-view set's bitwise."""
    images = images_of(40)
    names = VIEW_NAMES[view_set]
    four = dict(zip(FOUR, batched().from_images(images, draws_of(images)), strict=True))
    views = batched(view_set).from_images(images, draws_of(images, names))
    assert len(views) == len(names)
    assert all(torch.equal(view, four[name]) for name, view in zip(names, views, strict=True))


def test_crops_made_before_give_the_same_views():
    """Crops rounded to uint8 elsewhere change a weak view by half a grey level at most."""
    images = images_of(40, 50, 40)
    draws = draws_of(images)
    crops = {}
    for prime, crop in draws.crops.items():
        boxes = zip(crop.top, crop.left, crop.height, crop.width, strict=True)
        parts = [
            functional.resized_crop(image, *map(int, box), [32, 32], InterpolationMode.BILINEAR)
            for image, box in zip(images, boxes, strict=True)
        ]
        crops[prime] = torch.stack(parts)
    ours = dict(zip(FOUR, batched().from_crops(crops, draws), strict=True))
    expected = dict(zip(FOUR, batched().from_images(images, draws), strict=True))
    std = torch.tensor(STD)[:, None, None]
    for name in ("v_w", "v_w'"):
        # Half a level, and what torchvision's fixed-point weights add.
        assert ((ours[name] - expected[name]) * std * 255).abs().max() < 1.01
    for name in ("v_a", "v_a'"):
        assert ((ours[name] - expected[name]) * std * 255).abs().mean() < 1


def test_nothing_applied_leaves_the_weak_view():
    """With probabilities of 0 an aggressive view equals its weak view bitwise."""
    off = {"jitter_probability": 0, "grayscale_probability": 0, "blur_probability": 0}
    images = images_of(10)
    settings = {"weak": {"flip_probability": 0}, "aggressive": off}
    aggressive, aggressive_prime, weak, weak_prime = batched(**settings).from_images(
        images, draws_of(images, **settings)
    )
    assert torch.equal(aggressive, weak)
    assert torch.equal(aggressive_prime, weak_prime)
    assert not torch.equal(weak, weak_prime)


def test_everything_applied_to_every_image():
    """With probabilities of 1 no view keeps colour, and each is smoother than its weak view."""
    on = {"jitter_probability": 1, "grayscale_probability": 1, "blur_probability": 1}
    settings = {"aggressive": on | {"blur_sigma_pixels": (1.5, 2.0), "contrast": 0}}
    images = images_of(20)
    views = batched(**settings).from_images(images, draws_of(images, **settings))
    mean, std = (torch.tensor(rgb)[:, None, None] for rgb in (MEAN, STD))
    aggressive, _, weak, _ = (view * std + mean for view in views)
    assert (aggressive - aggressive[:, :1]).abs().max() < 1e-6
    assert (aggressive.diff(dim=-1).abs().mean((1, 2, 3)) < weak.diff().abs().mean((1, 2, 3))).all()


def test_nothing_is_learnt_from_the_device():
    """On the meta device, which holds no values to wait for, the views have their shape."""
    draws = draws_of(images_of(20, 40, 30))
    images = torch.empty(20, 3, 40, 30, dtype=torch.uint8, device="meta")
    crops = torch.empty(20, 3, 32, 32, dtype=torch.uint8, device="meta")
    maker = batched()
    views = maker.from_images(images, draws) + maker.from_crops({"": crops, "'": crops}, draws)
    assert [view.shape for view in views] == [(20, 3, 32, 32)] * 8
    assert all(view.device.type == "meta" for view in views)


def test_memory_format_makes_no_difference():
    """Channels-last images give the same views, bitwise."""
    images = images_of(20)
    draws = draws_of(images)
    expected = batched().from_images(images, draws)
    last = images.contiguous(memory_format=torch.channels_last)
    found = batched().from_images(last, draws)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.gpu
def test_gpu_and_cpu_make_the_same_views():
    """Whole views of both entries agree within 1e-5 of [0, 1], without a wait for the GPU."""
    images = images_of(64)
    draws = draws_of(images)
    maker = batched()

    def views(images):
        crops = {"": images, "'": images.flip(-2)}
        return maker.from_images(images, draws) + maker.from_crops(crops, draws)

    expected, on_gpu = views(images), images.cuda()
    views(on_gpu)  # constants are sent once
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = views(on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=1e-5 / min(STD))
