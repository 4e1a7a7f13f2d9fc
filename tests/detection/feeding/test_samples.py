import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_codec

from detection.coco.sets import TrainingImage, open_coco, training_images
from detection.feeding.samples import (
    TestImages,
    TestSample,
    TrainingSample,
    TrainingStream,
    make_sample,
    resized,
    step_seed,
)
from detection.recipe.recipe import InputConfig
from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.plumbing.errors import UserError

CPU = torch.device("cpu")
INPUT = InputConfig(
    train_short_sides_pixels=(48, 64), test_short_side_pixels=64, max_side_pixels=96
)


@pytest.fixture
def images(shapes_folder: Path) -> list[TrainingImage]:
    """Training images of the drawn set."""
    annotations = shapes_folder / "annotations" / "instances_train.json"
    return training_images(open_coco(annotations, shapes_folder / "train"))


def _sample_at(stream: TrainingStream, position: int) -> TrainingSample:
    sample = stream[position]
    assert isinstance(sample, TrainingSample)
    return sample


@pytest.mark.parametrize(
    ("size", "short_side", "max_side", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((300, 1000), 800, 1333, (400, 1333)),
        ((64, 64), 32, 1333, (32, 32)),
        ((427, 640), 640, 1333, (640, 959)),
        ((2, 5333), 8, 1333, (1, 1333)),
    ],
)
def test_sizes_by_hand(
    size: tuple[int, int], short_side: int, max_side: int, expected: tuple[int, int]
) -> None:
    """The short side is as requested unless the long one would exceed its limit."""
    assert resized(size, short_side, max_side) == expected


def test_photographs_are_turned_upright(images: list[TrainingImage], tmp_path: Path) -> None:
    """The EXIF orientation is applied: annotations refer to the upright image."""
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    image = replace(images[0], path=tmp_path / "turned.jpg", height=20, width=10)
    assert make_sample(image, 10, 96, flip=False).image.shape == (3, 20, 10)


def test_flip_mirrors_everything(images: list[TrainingImage]) -> None:
    """Flipped pixels, outlines and boxes are the mirror images of the unflipped."""
    plain = make_sample(images[0], 48, 96, flip=False)
    flipped = make_sample(images[0], 48, 96, flip=True)
    assert torch.equal(flipped.image, plain.image.flip(2))
    for outline, mirrored in zip(plain.outlines, flipped.outlines, strict=True):
        np.testing.assert_allclose(mirrored[0], outline[0] * [-1, 1] + [48, 0])
    expected = plain.boxes[:, [2, 1, 0, 3]]
    expected[:, [0, 2]] = 48 - expected[:, [0, 2]]
    np.testing.assert_allclose(flipped.boxes, expected, rtol=1e-6)


def test_boxes_enclose_outlines(images: list[TrainingImage]) -> None:
    """After resizing and flipping, each outline's extent is its box."""
    for image in images:
        sample = make_sample(image, 96, 96, flip=True)
        for box, outline in zip(sample.boxes, sample.outlines, strict=True):
            corners = np.concatenate(outline)
            extent = [*corners.min(axis=0), *corners.max(axis=0)]
            np.testing.assert_allclose(box, extent, atol=0.02)


def test_run_length_codes_become_bitmaps(images: list[TrainingImage]) -> None:
    """A mask that is no polygon is resized and flipped as pixels, and cut out with a margin."""
    bitmap = np.zeros((64, 64), dtype=np.uint8, order="F")
    bitmap[8:24, 16:48] = 1
    code = mask_codec.encode(bitmap)
    annotation = {**images[0].annotations[0], "segmentation": code}
    image = replace(images[0], annotations=(annotation,), labels=(1,))
    (outline,) = make_sample(image, 32, 96, flip=True).outlines
    expected = np.zeros((32, 32), dtype=np.uint8)
    expected[4:12, 8:24] = 1
    assert (outline.left, outline.top) == (7, 3)
    np.testing.assert_array_equal(outline.pixels, expected[3:13, 7:25])


def test_code_without_pixels_is_an_empty_bitmap(images: list[TrainingImage]) -> None:
    """An object that resizing makes vanish has a mask of nothing."""
    bitmap = np.zeros((64, 64), dtype=np.uint8, order="F")
    bitmap[0, 0] = 1
    annotation = {**images[0].annotations[0], "segmentation": mask_codec.encode(bitmap)}
    image = replace(images[0], annotations=(annotation,), labels=(1,))
    (outline,) = make_sample(image, 8, 96, flip=False).outlines
    assert not outline.pixels.any()


def test_sample_crosses_processes_as_one_tensor(images: list[TrainingImage]) -> None:
    """However many objects an image has, it takes one open file to hand over."""
    bitmap = np.ones((64, 64), dtype=np.uint8, order="F")
    annotation = {**images[0].annotations[0], "segmentation": mask_codec.encode(bitmap)}
    image = replace(images[0], annotations=(annotation,) * 300, labels=(1,) * 300)
    sample = make_sample(image, 32, 96, flip=False)
    values = [*vars(sample).values(), *(part for outline in sample.outlines for part in outline)]
    assert sum(isinstance(value, torch.Tensor) for value in values) == 1


@pytest.mark.parametrize("flip", [False, True])
def test_image_without_objects_is_a_sample(images: list[TrainingImage], flip: bool) -> None:
    """Its boxes and labels are empty, of the shape and type of others."""
    empty = make_sample(replace(images[0], annotations=(), labels=()), 48, 96, flip)
    full = make_sample(images[0], 48, 96, flip)
    assert torch.equal(empty.image, full.image)
    assert (empty.boxes.shape, empty.boxes.dtype) == ((0, 4), full.boxes.dtype)
    assert (empty.labels.shape, empty.labels.dtype) == ((0,), full.labels.dtype)
    assert empty.outlines == ()


def test_sample_is_a_function_of_seed_and_position(images: list[TrainingImage]) -> None:
    """Two streams agree at each position; another seed or position differs."""
    first, second = TrainingStream(images, INPUT, 5), TrainingStream(images, INPUT, 5)
    for position in (3, 0, 11):
        assert torch.equal(_sample_at(first, position).image, _sample_at(second, position).image)
    order = [first.image_at(position).path.name for position in range(12)]
    assert sorted(order[:6]) == sorted(order[6:]) == sorted(image.path.name for image in images)
    assert order[:6] != order[6:]
    other = TrainingStream(images, INPUT, 6)
    assert order != [other.image_at(position).path.name for position in range(12)]


def test_every_scale_and_flip_occurs(images: list[TrainingImage]) -> None:
    """Both short sides are drawn, and about half of the samples are flipped."""
    stream = TrainingStream(images[:1], INPUT, 0)
    sides = {_sample_at(stream, position).image.shape[1] for position in range(12)}
    assert sides == {48, 64}
    lefts = {round(float(_sample_at(stream, p).boxes[0, 0]) * 4) for p in range(12)}
    assert len(lefts) > 2


def test_workers_change_nothing(images: list[TrainingImage]) -> None:
    """A loader process delivers the same samples as the main process."""
    stream = TrainingStream(images, INPUT, 0)
    loader = make_loader(stream, [[4, 5], [6, 7]], 1, CPU, collate=list)
    found = [sample for batch in iterate(loader) for sample in batch]
    assert len(found) == 4
    for position, sample in enumerate(found, start=4):
        assert torch.equal(sample.image, _sample_at(stream, position).image)


def test_broken_image_is_one_clear_error(images: list[TrainingImage], tmp_path: Path) -> None:
    """An undecodable or wrongly annotated file is named, also from a loader process."""
    (tmp_path / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    for name, message in (("bad.png", "cannot be decoded"), ("small.png", "is 8x8, annotated as")):
        image = replace(images[0], path=tmp_path / name)
        stream = TrainingStream([image], INPUT, 0)
        loader = make_loader(stream, [[0]], 1, CPU, collate=list)
        with pytest.raises(UserError, match=rf"^image '.*{name}' {message}[^\n]*$"):
            list(iterate(loader))


def test_test_images_are_complete_and_sized(shapes_folder: Path) -> None:
    """Every image comes once, by id, 8-bit RGB, at test size."""
    annotations = shapes_folder / "annotations" / "instances_val.json"
    settings = INPUT.model_copy(update={"test_short_side_pixels": 32})
    samples = list(TestImages(open_coco(annotations, shapes_folder / "val"), settings))
    assert [s.image_id for s in samples if isinstance(s, TestSample)] == [1, 2, 3]
    for sample in samples:
        assert isinstance(sample, TestSample)
        assert sample.image.shape == (3, 32, 32)
        assert (sample.height, sample.width) == (64, 64)
        assert sample.image.dtype == torch.uint8
        assert sample.image.min() < sample.image.max()


def test_step_seeds_differ() -> None:
    """Each step of each seed and process draws for itself."""
    seeds = {step_seed(*key) for key in itertools.product(range(4), range(25), range(2))}
    assert len(seeds) == 200
