"""Test the checks for objects that a detector cannot find."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detection.coco.data_settings import SetRole
from detection.coco.sets import CocoSet
from detection.recipe.architecture import SamplingConfig
from detection.recipe.recipe import InputConfig
from detection.survey.findings import SetFindings
from detection.survey.limit_checks import (
    DetectorLimits,
    best_ap,
    check_counts,
    check_sizes,
    limits_of,
)

LIMITS = DetectorLimits(
    short_side=200, max_side=1000, detections_per_image=100, smallest_anchor=32.0
)

Tree = dict[str, Any]


def _tree(counts: list[list[int]], side: float = 5.0) -> Tree:
    """Return images of 100x200 pixels with these numbers of objects per category."""
    annotations: list[Tree] = []
    for image, numbers in enumerate(counts, start=1):
        places = ((6.0 * column, 6.0 * row) for row in range(33) for column in range(16))
        for category, number in enumerate(numbers, start=1):
            annotations += [
                {
                    "id": len(annotations) + index + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [*next(places), side, side],
                    "area": side**2,
                    "iscrowd": 0,
                }
                for index in range(number)
            ]
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": 100, "height": 200}
            for number in range(1, len(counts) + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def _checked(
    tree: Tree,
    role: SetRole,
    check: Callable[[SetFindings, DetectorLimits], None],
    limits: DetectorLimits = LIMITS,
) -> dict[str, list[str]]:
    found = SetFindings(role, CocoSet(Path("set.json"), Path("images"), tree))
    check(found, limits)
    assert found.errors == {}
    return found.notes


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [
        # Precision is 1 up to the recall that is reached; 101 recalls from 0 to 1 are averaged.
        ([[130]], 100, 100 * 77 / 101),
        ([[138]], 100, 100 * 73 / 101),
        ([[130], [20]], 100, 100 * 81 / 101),
        ([[10]], 5, 100 * 51 / 101),
        ([[5]], 5, 100.0),
        # Kept are the four of the rare category, and six of the twenty others.
        ([[20, 4]], 10, (100 * 31 / 101 + 100) / 2),
        # The second category is the rarer one of the file, though not of the first image.
        ([[4, 8], [20, 0]], 8, (100 * 34 / 101 + 100) / 2),
    ],
)
def test_best_ap_is_that_of_the_evaluator(
    counts: list[list[int]], most: int, expected: float
) -> None:
    """The ceiling is exact, and of several categories the best that can be had."""
    assert best_ap(_tree(counts), most) == pytest.approx(expected, abs=1e-9)


def test_crowds_are_no_objects() -> None:
    """They count towards no limit."""
    tree = _tree([[101]])
    tree["annotations"][0]["iscrowd"] = 1
    assert _checked(tree, "test", check_counts) == {}


def test_crowded_images_are_noted() -> None:
    """Images with more objects than detections are named; in testing with what that costs."""
    tree = _tree([[100], [138], [60, 41]])
    named = ["2.png (138)", "3.png (101)"]
    notes = _checked(tree, "train", check_counts)
    assert notes == {"images with more objects than sampling.detections_per_image=100": named}
    ((what, entries),) = _checked(tree, "test", check_counts).items()
    best = best_ap(tree, 100)
    assert 80 < best < 98
    assert what.endswith(f"_per_image=100; a perfect detector scores {best:.1f} box AP")
    assert entries == named


@pytest.mark.parametrize(
    ("side", "limits", "is_small"),
    [
        # Images of 100x200 pixels are doubled.
        (7.9, LIMITS, True),
        (8.0, LIMITS, False),
        (5.0, DetectorLimits(320, 1000, 100, 32.0), False),
        (5.1, DetectorLimits(320, 600, 100, 32.0), True),
        (7.9, DetectorLimits(200, 1000, 100, 31.0), False),
    ],
)
def test_small_objects_are_counted(side: float, limits: DetectorLimits, is_small: bool) -> None:
    """Those below half the smallest anchor in the resized image, whose long side is limited."""
    tree = _tree([[4]], side)
    notes = _checked(tree, "train", check_sizes, limits)
    if not is_small:
        assert notes == {}
        return
    ((what, entries),) = notes.items()
    assert what.startswith("objects smaller than 16 pixels, half the smallest anchor, where ")
    assert f"short side of {limits.short_side}, 100% of all: larger input.train_short_s" in what
    assert entries == [f"annotation {number}" for number in range(1, 5)]


def test_few_small_objects_are_no_note() -> None:
    """One in ten is as in COCO itself; a larger share of the used objects is reported."""
    tree = _tree([[11]], 20.0)
    tree["annotations"][0]["bbox"] = [0.0, 0.0, 2.0, 2.0]
    assert _checked(tree, "test", check_sizes) == {}
    tree["annotations"][1]["iscrowd"] = 1
    tree["annotations"][2]["bbox"] = [150.0, 0.0, 2.0, 2.0]
    ((what, entries),) = _checked(tree, "test", check_sizes).items()
    assert "11% of all: larger input.test_short_side_pixels" in what
    assert entries == ["annotation 1"]


def test_limits_are_the_recipe_s() -> None:
    """Training counts with its largest short side, testing with its only one."""
    settings = InputConfig(
        train_short_sides_pixels=(300, 500, 400), test_short_side_pixels=600, max_side_pixels=900
    )
    sampling = SamplingConfig(detections_per_image=7)
    found = limits_of("train", settings, sampling, (64, 16, 32))
    assert found == DetectorLimits(500, 900, 7, 16)
    assert limits_of("test", settings, sampling, (64, 16, 32)).short_side == 600
    assert limits_of("train") == limits_of("test") == DetectorLimits(800, 1333, 100, 32)
