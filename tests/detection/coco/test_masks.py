import numpy as np
import pytest
from pycocotools import mask as mask_codec

from detection.coco.masks import (
    code_fault,
    encode_mask,
    has_mask,
    is_polygon,
    polygons,
    render_mask,
    run_lengths,
)

SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
SIZE = (10, 20)
SQUARE_RUNS = [22, 4, 6, 4, 6, 4, 6, 4, 144]


def test_text_is_read_as_it_was_written() -> None:
    """The lengths read from pycocotools' text add up to the mask's runs, for 50 random masks."""
    random = np.random.default_rng(5)
    for _ in range(50):
        height, width = random.integers(1, 60, 2)
        mask = (random.random((height, width)) < random.random()).astype(np.uint8)
        runs = run_lengths(mask_codec.encode(np.asfortranarray(mask))["counts"])
        assert runs is not None
        values = np.repeat(np.arange(len(runs)) % 2, runs)
        np.testing.assert_array_equal(values.reshape(width, height).T, mask)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ({"size": [20, 10], "counts": SQUARE_RUNS}, "of size [20, 10], its image is [10, 20]"),
        ({"size": [10**6, 10**6], "counts": SQUARE_RUNS}, "its image is [10, 20]"),
        ({"size": "large", "counts": SQUARE_RUNS}, "of size 'large'"),
        ({"size": [10, 20], "counts": [0, 5000]}, "of 5000 pixels, not 200"),
        ({"size": [10, 20], "counts": [22, 4]}, "of 26 pixels, not 200"),
        ({"size": [10, 20], "counts": [-3, 203]}, "unreadable"),
        ({"size": [10, 20], "counts": ["a", 200]}, "unreadable"),
        ({"size": [10, 20], "counts": [True, 199]}, "unreadable"),
        ({"size": [10, 20], "counts": None}, "unreadable"),
        ({"size": [10, 20], "counts": "é"}, "unreadable"),
        ({"size": [10, 20], "counts": "zzzz~~~~"}, "unreadable"),
        ({"size": [10, 20], "counts": "f"}, "unreadable"),
        ({"size": [10, 20], "counts": ""}, "of 0 pixels, not 200"),
    ],
)
def test_damaged_codes_are_found(code: object, fault: str) -> None:
    """At several of these pycocotools would read foreign memory or end the process."""
    found = code_fault(code, SIZE)
    assert found is not None
    assert fault in found


def test_whole_codes_pass() -> None:
    """Valid codes as lists or text, and values that are not codes, have no fault."""
    text = encode_mask([SQUARE], SIZE)
    as_text = {"size": [10, 20], "counts": text["counts"].decode("ascii")}
    for segmentation in ({"size": [10, 20], "counts": SQUARE_RUNS}, as_text, [SQUARE], None, "x"):
        assert code_fault(segmentation, SIZE) is None


@pytest.mark.parametrize(
    "part",
    [
        [1.0, 1.0, 2.0, 2.0],
        [*SQUARE, 1.0],
        [*SQUARE[:7], 5e9],
        [*SQUARE[:7], float("nan")],
        [*SQUARE[:7], 10**400],
        [*SQUARE[:7], "6"],
        [*SQUARE[:7], True],
        "polygon",
        None,
    ],
)
def test_what_is_no_polygon(part: object) -> None:
    """Too few or odd coordinates, or one that is no position, make no polygon."""
    assert not is_polygon(part)
    assert not has_mask([part])
    assert polygons([part, SQUARE]) == [SQUARE]
    assert render_mask([part, SQUARE], SIZE, SIZE).sum() == 16


@pytest.mark.parametrize("segmentation", [None, [], "text", 3, {}, {"counts": [200]}])
def test_what_is_no_mask(segmentation: object) -> None:
    """Neither polygon nor code."""
    assert not has_mask(segmentation)


def test_polygons_and_both_run_length_codes_agree() -> None:
    """A 4x4 square is the same mask from each of COCO's three forms, at 1 and 2 times the size."""
    as_text = encode_mask({"size": [10, 20], "counts": SQUARE_RUNS}, SIZE)
    for segmentation in ([SQUARE], as_text, {"size": [10, 20], "counts": SQUARE_RUNS}):
        assert has_mask(segmentation)
        for scale in (1, 2):
            expected = np.zeros((10 * scale, 20 * scale), np.uint8)
            expected[2 * scale : 6 * scale, 2 * scale : 6 * scale] = 1
            mask = render_mask(segmentation, SIZE, (10 * scale, 20 * scale))
            np.testing.assert_array_equal(mask, expected)
        assert encode_mask(segmentation, SIZE)["counts"] == as_text["counts"]


def test_parts_of_an_instance_are_united() -> None:
    """Several polygons are one mask."""
    other = [10.0, 2.0, 14.0, 2.0, 14.0, 6.0, 10.0, 6.0]
    assert render_mask([SQUARE, other], SIZE, SIZE).sum() == 32
