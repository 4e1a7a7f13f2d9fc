import pytest

from detection.coco.importers.annotated import Instance, Notes
from detection.coco.importers.yolo import parse
from rsa_pretrain.plumbing.errors import UserError

SIZE = (40, 60)
NAMES = ["cat", "dog"]


def _read(text: str) -> tuple[list[Instance], dict[str, list[str]]]:
    notes = Notes()
    parsed = parse("a.txt", text.encode(), notes, NAMES)
    assert parsed[:2] == (None, None)
    return parsed.instances(SIZE), notes.kinds


def test_boxes_and_outlines() -> None:
    """Fractions become pixels, x by the width and y by the height, in files that mix both."""
    box, outline = "1 0.5 0.5 0.25 0.1", "0 0.1 0.1 0.5 0.1 0.5 0.75"
    (first, second), notes = _read(f"{box}\n{outline}\n")
    assert (first.label, first.segmentation) == ("dog", None)
    assert first.bbox == pytest.approx([22.5, 18, 15, 4])
    assert second.label == "cat"
    assert second.bbox == pytest.approx([6, 4, 24, 26])
    assert second.segmentation == [pytest.approx([6, 4, 30, 4, 30, 30])]
    assert notes == {}


@pytest.mark.parametrize("text", ["", "\n", "\r\n \r\n", "\ufeff"])
def test_empty_files_are_images_without_objects(text: str) -> None:
    """So say blank lines."""
    assert _read(text) == ([], {})


def test_windows_files_are_read() -> None:
    """A byte order mark, line ends, tabs and a class number with decimals change nothing."""
    instances, _ = _read("\ufeff0 0.5 0.5 0.25 0.1\r\n1.0\t0.5\t0.5  0.25 0.1\r\n")
    assert [entry.label for entry in instances] == ["cat", "dog"]


def test_rounding_is_cut() -> None:
    """Values up to a thousandth outside are cut, and counted once a line."""
    (instance,), notes = _read("0 -0.001 0.1 1.001 -0.0005 0.5 0.75")
    assert instance.segmentation == [pytest.approx([0, 4, 60, 0, 30, 30])]
    assert notes == {
        "lines with values up to 0.001 outside [0, 1], which are clipped": ["line 1 of 'a.txt'"]
    }


def test_outlines_of_four_corners_are_noted() -> None:
    """An oriented box looks the same."""
    (instance,), notes = _read("\n0 0.1 0.1 0.5 0.1 0.5 0.7 0.1 0.7")
    assert instance.segmentation is not None
    assert notes == {
        "outlines of four corners; if these are oriented boxes, they are not masks": [
            "line 2 of 'a.txt'"
        ]
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xd8\xff\xe0\0\x10", r"'a\.txt' is not UTF-"),
        (b"0", r"line 1 of 'a\.txt' has 1 values, expected 5"),
        (b"\n0 0.5 0.5 0.2 0.2 0.9", r"line 2 of 'a\.txt' has 6 values, expected 5 .*confidences"),
        (b"0" + b" 0.5" * 55, "has 56 values, .* key points cannot be imported"),
        (b"0 0.5 0.5 0.2", "has 4 values"),
        (b"2 0.5 0.5 0.2 0.2", r"line 1 of 'a\.txt' is of class '2', but the classes are 0 to 1"),
        (b"-1 0.5 0.5 0.2 0.2", "is of class '-1'"),
        (b"0.5 0.5 0.5 0.2 0.2", r"is of class '0\.5'"),
        (b"cat 0.5 0.5 0.2 0.2", "is of class 'cat'"),
        (b"0 312 200 50 40", r"has '312', expected fractions .* \(are these pixels\?\)"),
        (b"0 0.5 0.5 0.2 1.0011", r"has '1\.0011', expected fractions"),
        (b"0 0.5 0.5 -0.0011 0.2", r"has '-0\.0011', expected fractions"),
        (b"0 0.5 0.5 nan 0.2", "has 'nan', expected fractions"),
        (b"0 0.5 0.5 1e999 0.2", "has '1e999', expected fractions"),
        (b"0 0,5 0.5 0.2 0.2", "has '0,5', expected fractions"),
    ],
)
def test_faults_name_file_and_line(text: bytes, message: str) -> None:
    """A line that is neither a box nor an outline in fractions is refused."""
    with pytest.raises(UserError, match=message):
        parse("a.txt", text, Notes(), NAMES)
