"""Settings fitted to hand-made sets, whose numbers can be worked out on paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.coco.sets import CocoSet, TrainingImage
from detection.recipe.architecture import DEFAULT_ANCHORS, Anchors
from detection.survey.explained_config import ChosenValue
from detection.survey.fitting import fit_settings, keep_empty_choice
from detection.survey.fitting_sizes import entered_boxes, fit_anchors, fit_input, matched_share

Box = tuple[float, float]
SQUARE = [[0, 0, 1, 0, 1, 1]]


def _images(
    number: int,
    size: tuple[int, int],
    boxes: Sequence[Box],
    segmentations: Sequence[Any] = (SQUARE,),
) -> list[TrainingImage]:
    """Images of a width and height, each with boxes of these widths and heights.

    Args:
        number: Of images.
        size: Width and height.
        boxes: Of each image.
        segmentations: Taken in turn by the boxes of an image.
    """
    width, height = size
    annotations = tuple(
        {
            "bbox": [0, 0, *box],
            "category_id": 1,
            "segmentation": segmentations[position % len(segmentations)],
        }
        for position, box in enumerate(boxes)
    )
    return [
        TrainingImage(id_, Path(f"{id_}.png"), height, width, annotations, (1,) * len(boxes))
        for id_ in range(1, number + 1)
    ]


def _fit(images: Sequence[TrainingImage], **changes: Any) -> dict[str, ChosenValue]:
    settings = {"most_objects": 1, "epochs": None, "engine": "torchvision", **changes}
    return {choice.key: choice for choice in fit_settings(images, **settings).choices}


@pytest.mark.parametrize(
    ("size", "box", "short_side", "max_side", "why"),
    [
        (
            (640, 480),
            (100, 100),
            480,
            800,
            "a short side of 480 pixels; they enter at about their own",
        ),
        ((480, 640), (100, 100), 480, 800, "a short side of 480 pixels"),
        ((128, 128), (30, 30), 128, 213, "a short side of 128 pixels; they enter"),
        ((64, 64), (20, 20), 128, 213, "they are enlarged, as a cell of the coarsest map"),
        ((4000, 3000), (900, 900), 800, 1333, "they are shrunk to COCO's usual size"),
        # 10 px are wanted as 16 px: 300 x 1.6.
        ((400, 304), (10, 10), 488, 813, "then be smaller than 10 pixels, so all are enlarged 1.6"),
        # No more than twice, and never above COCO's.
        ((400, 304), (2, 2), 608, 1013, "enlarged 2 times"),
        ((900, 600), (6, 6), 800, 1333, "enlarged 1.3 times"),
        # Long images keep their short side while COCO's limit lets them.
        ((900, 300), (60, 60), 304, 912, "a short side of 300 pixels"),
        ((4000, 800), (60, 60), 800, 1333, "a short side of 800 pixels"),
    ],
)
def test_input_size(
    size: tuple[int, int], box: Box, short_side: int, max_side: int, why: str
) -> None:
    """The images' own size in steps of 8 pixels, within COCO's; more for small objects."""
    found = fit_input(_images(4, size, [box]))
    assert found.settings.test_short_side_pixels == short_side
    assert found.settings.max_side_pixels == max_side
    assert why in found.why


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((1000, 800), (640, 672, 704, 736, 768, 800)),
        ((128, 128), (104, 112, 120, 128)),
    ],
)
def test_training_sizes_go_down_to_four_fifths(
    size: tuple[int, int], sides: tuple[int, ...]
) -> None:
    """COCO's range in proportion; equal steps are one."""
    settings = fit_input(_images(2, size, [(60, 60)])).settings
    assert settings.train_short_sides_pixels == sides


def test_boxes_at_the_input_size() -> None:
    """Boxes are clipped to the image and scaled as it is, with both sides."""
    images = _images(1, (3000, 1500), [(300, 150), (9000, 1500)])
    settings = fit_input(images).settings
    assert (settings.test_short_side_pixels, settings.max_side_pixels) == (800, 1333)
    # The long side's limit decides: 1333 of 3000.
    expected = np.array([[300, 150], [3000, 1500]]) * [1333 / 3000, 667 / 1500]
    np.testing.assert_allclose(entered_boxes(images, settings), expected)


def test_matched_share_by_hand() -> None:
    """The best of all sizes and shapes counts; IoU 0.5 itself is a match."""
    anchors = Anchors((10, 100), (1.0, 4.0))
    boxes = np.array(
        [
            [10.0, 10.0],  # 1
            [10.0, 5.0],  # 50 / 100 = 0.5
            [10.0, 4.9],  # just below
            [5.0, 20.0],  # the second shape, 1
            [20.0, 5.0],  # 50 / 150
            [60.0, 80.0],  # 4800 / 10000
            [80.0, 80.0],  # 0.64
            [30.0, 30.0],  # 100 / 900 and 900 / 10000
        ]
    )
    assert matched_share(boxes, anchors) == 4 / 8


@pytest.mark.parametrize(
    ("sides", "smallest"),
    [
        ((40, 80, 160, 320), 32),  # the usual ones do, although 16 would do as well
        ((20, 40, 80), 16),
        ((7, 9, 11), 8),
        ((10, 20, 40, 80), 8),
        ((500, 800, 1000), 64),
    ],
)
def test_anchor_sizes(sides: tuple[float, ...], smallest: int) -> None:
    """Five doublings from the size that matches most objects, the usual one where it does."""
    anchors = fit_anchors(np.array([[side, side] for side in sides], dtype=float))
    assert anchors.sizes_pixels == tuple(smallest * 2**level for level in range(5))
    assert anchors.aspect_ratios == DEFAULT_ANCHORS.aspect_ratios


@pytest.mark.parametrize(
    ("long_share", "ratio", "shapes"),
    [
        (0.04, 6, (0.5, 1, 2)),
        (0.10, 2.5, (0.5, 1, 2)),
        (0.10, 3, (0.5, 1, 2, 4)),
        (0.10, 7, (0.5, 1, 2, 4, 8)),
        (0.10, 50, (0.5, 1, 2, 4, 8)),
        (0.10, 1 / 3, (0.25, 0.5, 1, 2)),
        (0.10, 1 / 50, (0.125, 0.25, 0.5, 1, 2)),
    ],
)
def test_anchor_shapes(long_share: float, ratio: float, shapes: tuple[float, ...]) -> None:
    """One box in twenty beyond the shapes on a side adds the next doubling there, up to 8."""
    heights = np.where(np.arange(100) < 100 * long_share, 60 * ratio, 60.0)
    boxes = np.stack([np.full(100, 60.0), heights], axis=1)
    assert fit_anchors(boxes).aspect_ratios == shapes


def test_anchors_say_what_they_match() -> None:
    """The reason holds the sizes at the input, and what the usual anchors would match."""
    found = _fit(_images(3, (512, 512), [(20, 20), (24, 24), (24, 24)]))
    assert found["model.anchor_sizes_pixels"].value == [16, 32, 64, 128, 256]
    why = found["model.anchor_sizes_pixels"].why
    assert "half of the 9 boxes are 20 to 24 pixels large" in why
    assert "100 % have an anchor of IoU 0.5 or more" in why
    assert "with the default anchors (32 to 512 pixels; 0.5, 1 and 2) 66.7 % do" in why
    assert found["model.anchor_aspect_ratios"].value == [0.5, 1, 2]


@pytest.mark.parametrize(
    ("num_images", "epochs", "iterations", "why"),
    [
        (10, None, 2000, "800 epochs of 10 images: the heads take some 2,000 iterations."),
        (240, None, 3000, "50 epochs of 240 images: as is usual for small sets."),
        (3000, None, 20_000, "27 epochs of 3,000 images: 20,000 iterations are enough"),
        (8000, None, 24_000, "12 epochs of 8,000 images: as many as COCO's 1x schedule."),
        (241, 3, 181, "3 epochs of 241 images: as asked for."),
        (1, 1, 1, "1 epochs of 1 images"),
    ],
)
def test_length(num_images: int, epochs: int | None, iterations: int, why: str) -> None:
    """Fifty epochs within 2,000 and 20,000 iterations, twelve at least; or as many as asked."""
    found = _fit(_images(num_images, (640, 480), [(50, 50)]), epochs=epochs)
    assert found["solver.iterations"].value == iterations
    assert why in found["solver.iterations"].why


@pytest.mark.parametrize(
    ("epochs", "warmup", "decay_at", "every", "checkpoint_every"),
    [
        (50, 300, [2100, 2700], 300, 300),
        (200, 600, [8400, 10800], 1200, 1200),
        (2, 40, [84, 108], 12, 12),
        (2000, 6000, [84_000, 108_000], 12_000, 5000),
    ],
)
def test_schedule_is_shares_of_the_run(
    epochs: int, warmup: int, decay_at: list[int], every: int, checkpoint_every: int
) -> None:
    """Warm-up: a twentieth, 300 iterations at least, a third at most; decay at 70 and 90 %.

    Evaluated ten times, and a checkpoint written as often or each 5,000 iterations.
    """
    found = _fit(_images(240, (640, 480), [(50, 50)]), epochs=epochs)
    assert found["solver.warmup_iterations"].value == warmup
    assert found["solver.decay_at"].value == decay_at
    assert found["training.evaluate_every_iterations"].value == every
    assert found["training.checkpoint_every_iterations"].value == checkpoint_every


@pytest.mark.parametrize(("num_images", "batch_size"), [(1, 1), (3, 3), (4, 4), (300, 4)])
def test_rate_is_in_proportion_to_the_batch(num_images: int, batch_size: int) -> None:
    """0.02 for 16 images; a batch is no larger than the set, and the rate is stated for it."""
    found = _fit(_images(num_images, (640, 480), [(50, 50)]))
    assert found["solver.batch_size"].value == batch_size
    assert found["solver.reference_batch_size"].value == batch_size
    assert found["solver.base_lr"].value == pytest.approx(0.02 * batch_size / 16)


@pytest.mark.parametrize(
    ("most", "detections", "proposals"),
    [(1, 100, 1000), (100, 100, 1000), (101, 200, 1000), (150, 300, 1500), (1000, 1500, 7500)],
)
def test_limits_of_full_images(most: int, detections: int, proposals: int) -> None:
    """Above 100 objects there is room for half as many again, in hundreds."""
    found = _fit(_images(4, (640, 480), [(50, 50)]), most_objects=most)
    assert found["sampling.detections_per_image"].value == detections
    assert found["sampling.proposals_per_image"].value == proposals
    assert f"has {most:,} objects" in found["sampling.detections_per_image"].why


@pytest.mark.parametrize(
    ("segmentations", "engine", "kept", "why"),
    [
        ([SQUARE], "torchvision", True, "Every object has a mask."),
        ([None, []], "torchvision", False, "No object has a mask: only boxes are trained."),
        ([SQUARE, None], "torchvision", True, "4 of 8 objects have no mask and train only boxes."),
        ([SQUARE, None], "detectron2", False, "4 of 8 objects have no mask, and detectron2 needs"),
    ],
)
def test_mask_head(segmentations: list[Any], engine: str, kept: bool, why: str) -> None:
    """Masks are predicted where the engine can train on those there are."""
    images = _images(4, (640, 480), [(50, 50)] * 2, segmentations)
    found = _fit(images, engine=engine)["model.mask_head"]
    assert found.value is kept
    assert why in found.why


@pytest.mark.parametrize(
    ("num_empty", "num_images", "kept", "why"),
    [
        (0, 4, False, "Every training image has an annotation."),
        (1, 4, True, "1 of 4 training images have no annotation and are background"),
        (2, 4, True, "2 of 4"),
        (3, 4, False, "3 of 4 training images have no annotation, too many to be intended"),
    ],
)
def test_empty_images(num_empty: int, num_images: int, kept: bool, why: str) -> None:
    """Images without annotations are background unless they are the majority."""
    images = [{"id": id_, "file_name": f"{id_}.png"} for id_ in range(num_images)]
    annotations = [{"image_id": id_} for id_ in range(num_empty, num_images) for _ in range(2)]
    coco = CocoSet(Path("own.json"), Path(), {"images": images, "annotations": annotations})
    found = keep_empty_choice(coco)
    assert (found.key, found.value) == ("data.keep_empty_images", kept)
    assert why in found.why


def test_empty_images_count_as_images_of_an_epoch() -> None:
    """Those that are trained on make an epoch longer, and have no boxes to be measured."""
    images = [*_images(200, (640, 480), [(50, 50)]), *_images(40, (640, 480), [])]
    assert "50 epochs of 240 images" in _fit(images)["solver.iterations"].why


@pytest.mark.parametrize(("num_tiny", "told"), [(0, False), (1, False), (2, True), (19, True)])
def test_tiny_objects_are_told(num_tiny: int, told: bool) -> None:
    """Where one object in ten is below 8 pixels even at the largest input, a note says so."""
    boxes = [(20.0, 20.0)] * num_tiny + [(100.0, 100.0)] * (19 - num_tiny)
    fit = fit_settings(_images(2, (3200, 3200), boxes), 19, None, "torchvision")
    assert bool(fit.notes) == told
    assert all("smaller than 8 pixels and will hardly be found" in note for note in fit.notes)
