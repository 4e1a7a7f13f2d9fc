"""Draw images with masks, boxes and names as one self-contained HTML page.

A page has one card per image; a card has one or two panels, such as annotations and detections.
Each object is drawn separately, so that the page can hide it by score, category or kind of mark.
"""

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from detection.coco.masks import Size, render_mask
from rsa_pretrain.plumbing.atomic_files import write_text

PAGE_MARK = "rsa-toolkit: photographs"
"""Text that identifies every page."""

# The long side of an image on the page; small ones are enlarged for smooth outlines.
MIN_SIDE_PIXELS, MAX_SIDE_PIXELS = 480, 800
_JPEG_QUALITY = 82
_GOLDEN_RATIO = 0.618034
_FILL_OPACITY = 90
_OUTLINE_PIXELS = 2


@dataclass(frozen=True)
class DrawnObject:
    """An object on an image."""

    category: int
    """Position in the page's categories."""
    label: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the annotated image, inside it."""
    segmentation: Any = None
    """In any of COCO's forms, and valid; None draws no mask."""
    score: float | None = None
    """Score of a detection, which is shown while the threshold is no higher."""
    is_target: bool = False
    """An object that should be found; drawn dashed while it is not."""
    found_score: float | None = None
    """Score of the detection that found a target; None if none did."""
    is_special: bool = False
    """Always drawn dashed: a crowd, or a wrong detection."""


@dataclass(frozen=True)
class Panel:
    """One drawing of the image."""

    title: str
    objects: Sequence[DrawnObject]
    dashed: str = ""
    """Word for its dashed objects except crowds, shown with their count: missed or wrong."""


@dataclass(frozen=True)
class Card:
    """One image."""

    title: str
    photo: Image.Image
    """At its annotated size."""
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Page:
    """Everything but the cards."""

    title: str
    subtitle: str
    categories: Sequence[str]
    threshold: float | None = None
    """Initial value of the score slider; None has no slider."""
    errors: Sequence[str] = ()
    notes: Sequence[str] = ()
    counts: Sequence[tuple[str, int, int]] = field(default=())
    """Category, instances and images with one."""


def write_page(page: Page, cards: Sequence[Card], out: Path) -> None:
    """Write the page; external text is escaped.

    Args:
        page: Title, categories and findings.
        cards: One per image.
        out: HTML file.
    """
    colours = [category_colour(index) for index in range(len(page.categories))]
    environment = Environment(
        loader=PackageLoader("detection.pictures", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    used = {drawn.category for card in cards for panel in card.panels for drawn in panel.objects}
    legend = [
        {"number": index, "name": page.categories[index], "colour": _css(colours[index])}
        for index in sorted(used)
    ]
    text = environment.get_template("page.html.jinja").render(
        mark=PAGE_MARK,
        page=page,
        legend=legend,
        cards=[_draw_card(card, colours) for card in cards],
    )
    write_text(out, text)


def category_colour(index: int) -> tuple[int, int, int]:
    """Return a category's RGB; neighbours differ in hue and lightness."""
    hue = (0.6 + index * _GOLDEN_RATIO) % 1
    lightness = (0.55, 0.66, 0.46)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_card(card: Card, colours: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    width, height = card.photo.size
    longest = max(width, height)
    scale = min(max(longest, MIN_SIDE_PIXELS), MAX_SIDE_PIXELS) / longest
    shown = (max(1, round(height * scale)), max(1, round(width * scale)))
    photo = card.photo.resize((shown[1], shown[0]), Image.Resampling.LANCZOS)
    return {
        "title": card.title,
        "size": f"{width}×{height}",
        "height": shown[0],
        "width": shown[1],
        "photo": _data_uri(photo, "JPEG", quality=_JPEG_QUALITY),
        "panels": [
            {
                "title": panel.title,
                "dashed": panel.dashed,
                "objects": [
                    _draw_object(drawn, colours[drawn.category], (height, width), shown)
                    for drawn in sorted(panel.objects, key=_area, reverse=True)
                ],
            }
            for panel in card.panels
        ],
    }


def _draw_object(
    drawn: DrawnObject, colour: tuple[int, int, int], size: Size, shown: Size
) -> dict[str, Any]:
    factors = (shown[1] / size[1], shown[0] / size[0]) * 2
    x0, y0, x1, y1 = (value * factor for value, factor in zip(drawn.box, factors, strict=True))
    left, top, right = 100 * x0 / shown[1], 100 * y0 / shown[0], 100 * x1 / shown[1]
    # A label starts at the box's left edge, or ends at its right one where it would be cut off.
    side = f"left:{left:.2f}%" if left < 60 else f"right:{max(0, 100 - right):.2f}%"
    return {
        "object": drawn,
        "colour": _css(colour),
        "ink": "#000" if _is_light(colour) else "#fff",
        "box": [round(value, 1) for value in (x0, y0, x1 - x0, y1 - y0)],
        "label_style": f"{side};top:{top:.2f}%",
        "is_high": top < 6,
        "mask": None
        if drawn.segmentation is None
        else _draw_mask(render_mask(drawn.segmentation, size, shown), colour),
    }


def _draw_mask(mask: NDArray[np.uint8], colour: tuple[int, int, int]) -> dict[str, Any] | None:
    """Return a mask as a cropped picture, faintly filled with a solid outline, and its position."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    cut = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(bool), _OUTLINE_PIXELS)
    inner = cut
    for _ in range(_OUTLINE_PIXELS):
        inner = _eroded(inner)
    levels = (cut.astype(np.uint8) + (cut & ~inner))[_OUTLINE_PIXELS:-_OUTLINE_PIXELS]
    picture = Image.fromarray(
        np.ascontiguousarray(levels[:, _OUTLINE_PIXELS:-_OUTLINE_PIXELS]), "P"
    )
    picture.putpalette([*colour] * 3)
    return {
        "x": left,
        "y": top,
        "width": picture.width,
        "height": picture.height,
        "data": _data_uri(picture, "PNG", transparency=bytes([0, _FILL_OPACITY, 255]), bits=2),
    }


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove the pixels with a neighbour outside the mask."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = (
        mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    )
    return inner


def _data_uri(picture: Image.Image, kind: str, **settings: Any) -> str:
    file = io.BytesIO()
    picture.save(file, kind, optimize=True, **settings)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"


def _area(drawn: DrawnObject) -> float:
    x0, y0, x1, y1 = drawn.box
    return (x1 - x0) * (y1 - y0)


def _is_light(colour: tuple[int, int, int]) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140


def _css(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
