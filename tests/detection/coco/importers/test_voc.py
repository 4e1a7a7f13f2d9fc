import pytest

from detection.coco.importers.annotated import Instance, Notes
from detection.coco.importers.voc import parse
from rsa_pretrain.plumbing.errors import UserError

SIZE = (40, 60)


def _box(xmin: object, ymin: object, xmax: object, ymax: object) -> str:
    return (
        f"<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        "</bndbox>"
    )


def _object(inner: str = "", box: str = _box(3, 4, 12, 9)) -> str:
    return f"<object><name>cat</name>{box}{inner}</object>"


def _file(*objects: str, head: str = "<filename>a.jpg</filename>") -> bytes:
    return f"<annotation>{head}{''.join(objects)}</annotation>".encode()


def _read(*objects: str) -> tuple[list[Instance], dict[str, list[str]]]:
    notes = Notes()
    return parse("a.xml", _file(*objects), notes).instances(SIZE), notes.kinds


def test_boxes_count_from_one_and_include_their_last_pixel() -> None:
    """The pixels 3 to 12, counted from 1, begin at x = 2 and are ten; one pixel is a box."""
    instances, notes = _read(
        _object(), _object(box=_box(1, 1, 1, 1)), _object(box=_box(3.5, 4, 4, 4))
    )
    assert [entry.bbox for entry in instances] == [[2, 3, 10, 6], [0, 0, 1, 1], [2.5, 3, 1.5, 1]]
    assert {entry.label for entry in instances} == {"cat"}
    assert all(entry.segmentation is None and entry.extra == {} for entry in instances)
    assert notes == {}


def test_spaces_in_names_are_one() -> None:
    """The layout of the XML does not matter."""
    (instance,), _ = _read(_object().replace("cat", "\n wild\n\tcat "))
    assert instance.label == "wild cat"


def test_boxes_from_zero_are_noted() -> None:
    """VOC knows no pixel 0: the tool counts otherwise."""
    _, notes = _read(_object(box=_box(0, 4, 12, 9)), _object(box=_box(1, 0, 12, 9)), _object())
    assert notes == {
        "boxes that begin at 0, although VOC counts from 1; clipped": ["a.xml: cat"] * 2
    }


def test_difficult_is_a_key() -> None:
    """The mark is kept, with a note on its effect."""
    instances, notes = _read(
        _object("<difficult>1</difficult>"), _object("<difficult>0</difficult>")
    )
    assert [entry.extra for entry in instances] == [{"difficult": 1}, {}]
    ((kind, entries),) = notes.items()
    assert kind.startswith("objects marked difficult; trained on like any other, but neither")
    assert entries == ["a.xml: cat"]


@pytest.mark.parametrize("word", ["2", "yes", "1.0", "unspecified"])
def test_an_odd_difficult_is_refused(word: str) -> None:
    """It would be counted as found or missed."""
    with pytest.raises(UserError, match=rf"object 1 .* has difficult '{word}', expected 0 or 1"):
        _read(_object(f"<difficult>{word}</difficult>"))


def test_attributes_are_noted_where_they_say_something() -> None:
    """Pose, truncation, parts and unknown tags are named; defaults are not."""
    said = "<pose>Left</pose><truncated>1</truncated><part><name>head</name></part><age>3</age>"
    unsaid = "<pose>Unspecified</pose><truncated>0</truncated><occluded/><part/>"
    _, notes = _read(_object(said), _object(unsaid))
    assert notes == {
        f"<{tag}> of objects, not carried over": ["a.xml: cat"]
        for tag in ("age", "part", "pose", "truncated")
    }


@pytest.mark.parametrize(
    "polygon",
    [
        "<x1>2</x1><y1>3</y1><x2>12</x2><y2>3</y2><x3>12</x3><y3>9.5</y3>",
        "<y1>3</y1><x1>2</x1><x3>12</x3><y3>9.5</y3><x2>12</x2><y2>3</y2>",
        "<pt><x>2</x><y>3</y></pt><pt><x>12</x><y>3</y></pt><pt><x>12</x><y>9.5</y></pt>",
    ],
)
def test_outlines_are_kept(polygon: str) -> None:
    """Corners stay as they stand, and the box is the annotated one."""
    element = f"<polygon>{polygon}</polygon>"
    (one, two), notes = _read(_object(element), _object(element * 2))
    outline = [2, 3, 12, 3, 12, 9.5]
    assert one == Instance("cat", [2, 3, 10, 6], [outline])
    assert two.segmentation == [outline, outline]
    assert notes == {}


@pytest.mark.parametrize(
    "polygon",
    ["", "<x1>2</x1><y1>3</y1><x2>12</x2><y2>3</y2>", "<points>2,3;12,3;12,9</points>"],
)
def test_other_outlines_are_noted(polygon: str) -> None:
    """Their objects keep their boxes."""
    (instance,), notes = _read(_object(f"<polygon>{polygon}</polygon>"))
    assert instance == Instance("cat", [2, 3, 10, 6])
    assert notes == {"outlines in an unknown form, left out; their boxes are kept": ["a.xml: cat"]}


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("", (None, None)),
        ("<filename/><size><width>0</width><height>0</height></size>", (None, None)),
        ("<filename> a b.jpg\n</filename>", ("a b.jpg", None)),
        ("<size><width>60</width><height>40</height><depth>3</depth></size>", (None, (40, 60))),
    ],
)
def test_image_is_stated(head: str, expected: object) -> None:
    """Name and size are handed on; empty ones and zeros are none."""
    assert parse("a.xml", _file(head=head), Notes())[:2] == expected


def test_encodings() -> None:
    """UTF-8 with a mark, UTF-16 and a declared code page are read."""
    body = _file(_object().replace("cat", "käse")).decode()
    for encoding, declared in (("utf-8-sig", ""), ("utf-16", ""), ("latin-1", "latin-1")):
        start = f'<?xml version="1.0" encoding="{declared}"?>\r\n' if declared else ""
        (instance,) = parse("a.xml", (start + body).encode(encoding), Notes()).instances(SIZE)
        assert instance.label == "käse"


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"'a\.xml' is not readable XML \(no element found"),
        (b"\xff\xd8\xff\xe0\0\0", "is not readable XML"),
        (b'<?xml version="1.0" encoding="gbk"?><annotation/>', "multi-byte encodings"),
        (b'<?xml version="1.0" encoding="no"?><annotation/>', "unknown encoding"),
        (b"<annotation><object>", "is not readable XML"),
        (b"<html></html>", r"is not PASCAL VOC's: it begins with <html>"),
        (
            f'<!DOCTYPE x [<!ENTITY l0 "l">{LAUGHS}]><annotation>&l9;</annotation>'.encode(),
            "it has a DOCTYPE declaration",
        ),
        (
            b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>',
            "it has a DOCTYPE declaration",
        ),
        (_file("<object/>"), r"object 1 of 'a\.xml' has no name"),
        (_file(_object(), _object(box="")), r"object 2 \('cat'\) of 'a\.xml' has no bndbox"),
        (_file(_object(box="<bndbox/>")), "has '' as a coordinate"),
        (_file(_object(box=_box("nan", 1, 2, 3))), "has 'nan' as a coordinate"),
        (_file(_object(box=_box("1e999", 1, 2, 3))), "has '1e999' as a coordinate"),
        (_file(_object(box=_box("1e7", 1, 2e7, 3))), "has '10000000.0' as a coordinate"),
        (_file(_object(box=_box(9, 4, 3, 9))), "an inverted box: xmin 9, ymin 4, xmax 3"),
        (_file(_object(box=_box(3, 9, 9, 4))), "an inverted box: xmin 3, ymin 9"),
        (
            _file(_object("<polygon>" + "<pt><x>1</x><y>a</y></pt>" * 3 + "</polygon>")),
            "has 'a' as a coordinate",
        ),
        (
            _file(head="<size><width>60</width><height>-4</height></size>"),
            "impossible size: height -4, width 60",
        ),
        (_file(head="<size><width>60</width></size>"), "impossible size: height , width 60"),
    ],
)
def test_faults_are_one_line(content: bytes, message: str) -> None:
    """A file that is not VOC's, or that could harm, is refused by name, with the object."""
    with pytest.raises(UserError, match=message):
        parse("a.xml", content, Notes())
