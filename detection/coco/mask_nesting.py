"""Convert differently nested segmentations to COCO's forms.

COCO has ``[[x1, y1, x2, y2, …], …]`` and ``{"size": [height, width], "counts": …}``. Exports also
write one flat list, corners as ``[x, y]`` pairs, and codes inside a list. Values are unchanged.
"""

from collections.abc import Iterator
from typing import Any

from pycocotools import mask as mask_codec

from detection.coco.loose_numbers import NUMBER_TYPES, as_number, as_whole
from detection.coco.masks import FEWEST_COORDINATES, Size, code_fault, encode_mask, has_mask

NESTED = "values of annotations.segmentation are nested differently from [[x1, y1, …]], and read so"
LISTED_CODE = "values of annotations.segmentation are run-length codes in a list, taken out of it"
AS_TEXT = (
    "values of annotations.segmentation have numbers as text or with decimals, read as numbers"
)

_PAIR = 2
_FEWEST_CORNERS = 3
_DEEPEST = 6


def is_nested_as_in_coco(segmentation: Any) -> bool:
    """Return whether ``nested_as_in_coco`` would return polygons unchanged, at little cost."""
    if type(segmentation) is not list:
        return segmentation is None
    for part in segmentation:
        if (
            type(part) is not list
            or len(part) < FEWEST_COORDINATES
            or type(part[0]) not in NUMBER_TYPES
        ):
            return False
    return True


def nested_as_in_coco(segmentation: Any, size: Size) -> tuple[Any, str | None]:
    """Return a segmentation in COCO's form and a note on the change, or None without one.

    Any form but COCO's and those above is returned unchanged.

    Args:
        segmentation: As read from the file.
        size: Height and width of the image.
    """
    if isinstance(segmentation, dict):
        code = _with_whole_numbers(segmentation)
        return code, None if code == segmentation else AS_TEXT
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation, None
    if all(isinstance(part, dict) for part in segmentation):
        return _united([_with_whole_numbers(part) for part in segmentation], size), LISTED_CODE
    if not any(isinstance(part, list) for part in segmentation):
        outline = _as_numbers(segmentation)
        is_outline = set(map(type, outline)) <= NUMBER_TYPES
        return ([outline], NESTED) if is_outline else (segmentation, None)
    parts = list(_outlines(segmentation, _DEEPEST))
    read = [_as_numbers(part) if isinstance(part, list) else part for part in parts]
    if read != parts:
        return read, AS_TEXT
    return (segmentation, None) if parts == segmentation else (parts, NESTED)


def _outlines(segmentation: list[Any], depth: int) -> Iterator[Any]:
    """Yield each outline as a flat list, however it is nested."""
    if len(segmentation) >= _FEWEST_CORNERS and all(map(_is_pair, segmentation)):
        yield [value for pair in segmentation for value in pair]
        return
    for part in segmentation:
        if isinstance(part, list) and depth and any(isinstance(value, list) for value in part):
            yield from _outlines(part, depth - 1)
        else:
            yield part


def _is_pair(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) == _PAIR
        and not any(isinstance(value, list | dict) for value in part)
    )


def _as_numbers(outline: list[Any]) -> list[Any]:
    """Return an outline with text parsed as numbers, or unchanged if some does not parse."""
    if not any(isinstance(value, str) for value in outline):
        return outline
    numbers = [as_number(value) for value in outline]
    return outline if None in numbers else numbers


def _with_whole_numbers(code: dict[str, Any]) -> dict[str, Any]:
    """Return a run-length code with whole numbers in place of text or decimals."""
    repaired = dict(code)
    for key in ("size", "counts"):
        values = code.get(key)
        if isinstance(values, list) and not all(type(value) is int for value in values):
            whole = [as_whole(value) for value in values]
            if None not in whole:
                repaired[key] = whole
    return repaired


def _united(codes: list[dict[str, Any]], size: Size) -> dict[str, Any]:
    """Merge an image's run-length codes; return a damaged one, so that its fault is reported."""
    damaged = [code for code in codes if not has_mask(code) or code_fault(code, size) is not None]
    if damaged or len(codes) == 1:
        return [*damaged, *codes][0]
    united = mask_codec.merge([encode_mask(code, size) for code in codes])
    return {"size": list(size), "counts": united["counts"].decode("ascii")}
