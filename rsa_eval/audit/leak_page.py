"""Write the leaks as one self-contained HTML page, each pair of images side by side."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from rsa_eval.audit.duplicates import Duplicate, num_exact
from rsa_eval.audit.finding import FindingGroup
from rsa_eval.audit.leak_findings import CleanAccuracy, clean_accuracies
from rsa_eval.audit.leaks import Leak, LeakSearch
from rsa_pretrain.data.image_set import UNLABELLED, ImageSet
from rsa_pretrain.plumbing.atomic_files import write_text

MOST_PAIRS = 100
"""Pairs shown of each leak; the page states how many there are."""
_THUMBNAIL_PIXELS = 160
_SMALL_PIXELS = 64  # smaller images are kept without loss and enlarged without interpolation
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class ShownImage:
    """One image of a pair."""

    key: str
    class_name: str
    """Empty if it has no class."""
    size: str
    data_uri: str
    is_small: bool


@dataclass(frozen=True)
class ShownPair:
    """A test image beside its duplicate."""

    test: ShownImage
    other: ShownImage
    verdict: str


@dataclass(frozen=True)
class ShownLeak:
    """One section of the page."""

    title: str
    counts: str
    accuracies: list[CleanAccuracy]
    pairs: list[ShownPair]
    num_pairs: int


def write_leak_page(search: LeakSearch, group: FindingGroup, path: Path) -> None:
    """Write the page; names of files and classes are escaped.

    Args:
        search: Result of the search.
        group: The same as findings.
        path: HTML file.

    Raises:
        UserError: If an image can no longer be read.
    """
    environment = Environment(
        loader=PackageLoader("rsa_eval.audit", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("leaks.html.jinja").render(
        leaks=[_show(leak) for leak in sorted(search.leaks, key=lambda leak: leak.is_within)],
        findings=[found for found in group.findings if found.topic.startswith(("not", "checked"))],
    )
    write_text(path, page)


def _show(leak: Leak) -> ShownLeak:
    # Exact copies first, then the pairs that resemble each other most.
    ordered = sorted(leak.duplicates, key=lambda pair: (not pair.is_exact, -pair.correlation))
    tests, others = leak.test.keys(), leak.bank.keys()
    number, exact = len(ordered), num_exact(ordered)
    title = (
        f"{leak.test.name}: repeated test images"
        if leak.is_within
        else f"{leak.test.name}: test images among the {leak.bank_name}"
    )
    mirrored = sum(pair.is_mirrored for pair in ordered)
    return ShownLeak(
        title=title,
        counts=f"{number:,} of {len(leak.test):,} test images have a duplicate among "
        f"{len(leak.bank):,} images: {exact:,} exact, {number - exact:,} near "
        f"({mirrored:,} mirrored)",
        accuracies=[] if leak.is_within else clean_accuracies(leak),
        pairs=[
            ShownPair(
                _shown(leak.test, pair.row, tests[pair.row]),
                _shown(leak.bank, pair.other, others[pair.other]),
                _verdict(pair),
            )
            for pair in ordered[:MOST_PAIRS]
        ],
        num_pairs=number,
    )


def _verdict(pair: Duplicate) -> str:
    if pair.is_exact:
        return "all pixels equal"
    parts = [f"pHash {pair.bits} bits", f"correlation {pair.correlation:.2f}"]
    if pair.detail is not None:
        parts.append(f"detail {pair.detail:.2f}")
    if pair.is_mirrored:
        parts.append("mirrored")
    if pair.by_features:
        parts.append("found by features")
    return ", ".join(parts)


def _shown(images: ImageSet, row: int, key: str) -> ShownImage:
    image = images[row]
    label = int(images.labels_of([row]))
    is_small = max(image.size) <= _SMALL_PIXELS
    return ShownImage(
        key=key,
        class_name="" if label == UNLABELLED else images.class_names[label],
        size=f"{image.width}×{image.height}",
        data_uri=_data_uri(image, is_small),
        is_small=is_small,
    )


def _data_uri(image: Image.Image, is_small: bool) -> str:
    thumbnail = image.copy()
    thumbnail.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    kind = "png" if is_small else "jpeg"
    file = io.BytesIO()
    thumbnail.save(file, format=kind, quality=_JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
