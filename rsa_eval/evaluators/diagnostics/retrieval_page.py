"""Show query images beside their nearest neighbours, as a plot and as an HTML page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from rsa_eval.evaluators.shared.figures import INK, RIGHT, SOFT, WRONG, drawing, short_name
from rsa_eval.evaluators.shared.neighbours import Neighbours
from rsa_pretrain.data.image_set import ImageSet

_THUMBNAIL_PIXELS = 128
# Smaller images are shown without interpolation and compressed losslessly.
_SMALL_PIXELS = 64

# Photographs do not compress well: this keeps the plot below 2 MB.
_DOTS_PER_INCH = 100

# Colour and mark of a neighbour: of the query's class, of another, without a class.
_MARKS = {True: (RIGHT, "✓ "), False: (WRONG, "✗ "), None: (SOFT, "")}

# The plot's grid, in widths of a thumbnail.
_GAP = 1.3
"""From the query to the first neighbour."""
_COLUMN = 1.08
_ROW = 1.48


@dataclass(frozen=True)
class CaptionedImage:
    """One image with its caption."""

    thumbnail: Image.Image
    """Square, RGB."""
    class_name: str | None
    """None if images have no classes."""
    similarity: float | None = None
    """Cosine with the query; None for the query itself."""
    is_right: bool | None = None
    """True if it has the query's class; None if images have no classes."""

    @property
    def is_small(self) -> bool:
        """True if the image is shown without interpolation."""
        return self.thumbnail.width <= _SMALL_PIXELS

    @property
    def data_uri(self) -> str:
        """The thumbnail as a data URI, for embedding in a page."""
        kind = "png" if self.is_small else "jpeg"
        file = io.BytesIO()
        self.thumbnail.save(file, format=kind, quality=85)
        return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class QueryRow:
    """One query and its neighbours."""

    query: CaptionedImage
    neighbours: tuple[CaptionedImage, ...]
    """Nearest first."""

    @property
    def num_right(self) -> int | None:
        """Number of neighbours of the query's class; None if images have no classes."""
        if self.query.class_name is None:
            return None
        return sum(bool(neighbour.is_right) for neighbour in self.neighbours)


def retrieval_rows(
    test: ImageSet,
    train: ImageSet,
    class_names: Sequence[str] | None,
    queries: Sequence[int],
    neighbours: Neighbours,
) -> list[QueryRow]:
    """Read the images of queries and of their neighbours.

    Args:
        test: Images from which the queries are taken.
        train: The bank.
        class_names: By class index; None leaves classes out.
        queries: Indices of the queries in ``test``.
        neighbours: Neighbours of the queries, in the same order.

    Raises:
        UserError: If an image cannot be read.
    """
    rows = []
    for place, query in enumerate(queries):
        found = zip(
            neighbours.indices[place].tolist(), neighbours.similarities[place].tolist(), strict=True
        )
        wanted = _label(test, query)
        shown = tuple(
            CaptionedImage(
                _thumbnail(train[row]),
                _class_name(train, row, class_names),
                similarity,
                None if class_names is None else _label(train, row) == wanted,
            )
            for row, similarity in found
        )
        rows.append(
            QueryRow(
                CaptionedImage(_thumbnail(test[query]), _class_name(test, query, class_names)),
                shown,
            )
        )
    return rows


def _label(images: ImageSet, row: int) -> int:
    return int(images.labels_of([row]))


def _class_name(images: ImageSet, row: int, class_names: Sequence[str] | None) -> str | None:
    return None if class_names is None else class_names[_label(images, row)]


def draw_retrieval(rows: Sequence[QueryRow], title: str, path: Path) -> None:
    """Plot a row per query: the query, then its neighbours, marked right or wrong.

    Args:
        rows: At least one.
        title: Title of the plot.
        path: PNG to write.
    """
    # A single axes, in which a thumbnail is a unit square: one axes each would take minutes.
    width = _GAP + _COLUMN * len(rows[0].neighbours) + 0.02
    height = _ROW * len(rows) + 0.2
    inches = 0.92
    size = (inches * width + 0.1, inches * height + 0.4)
    with drawing(*size, path, dots_per_inch=_DOTS_PER_INCH) as figure:
        axes = figure.add_subplot()
        axes.set_title(title, fontsize=10)
        for place, row in enumerate(rows):
            top = _ROW * place
            _draw_image(axes, row.query, 0.0, top, INK, "query")
            for column, shown in enumerate(row.neighbours):
                colour, mark = _MARKS[shown.is_right]
                caption = f"{mark}{shown.similarity:.2f}"
                _draw_image(axes, shown, _GAP + _COLUMN * column, top, colour, caption)
        # Drawing an image resets the axes' limits.
        axes.set_xlim(-0.02, width - 0.02)
        axes.set_ylim(height - 0.2, -0.2)
        axes.set_aspect("equal")
        axes.set_axis_off()


def write_retrieval_page(rows: Sequence[QueryRow], title: str, path: Path) -> None:
    """Write a self-contained HTML page of the rows, with embedded thumbnails and escaped names."""
    environment = Environment(
        loader=PackageLoader("rsa_eval.evaluators.diagnostics", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("retrieval.html.jinja")
    has_classes = rows[0].num_right is not None
    page = template.render(rows=rows, title=title, has_classes=has_classes)
    path.write_text(page, encoding="utf-8")


def _thumbnail(image: Image.Image) -> Image.Image:
    """Crop the centre to a square and downscale large images."""
    side = min(image.size)
    if side > _SMALL_PIXELS:
        side = min(side, _THUMBNAIL_PIXELS)
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def _draw_image(
    axes: Axes, shown: CaptionedImage, left: float, top: float, colour: str, caption: str
) -> None:
    axes.imshow(
        shown.thumbnail,
        extent=(left, left + 1, top + 1, top),
        interpolation="nearest" if shown.is_small else "antialiased",
    )
    axes.add_patch(
        Rectangle((left, top), 1, 1, fill=False, edgecolor=colour, linewidth=2.0, joinstyle="miter")
    )
    axes.text(left, top - 0.035, caption, fontsize=7.5, color=colour, va="bottom", weight="bold")
    if shown.class_name is not None:
        name = short_name(shown.class_name, 14)
        axes.text(left, top + 1.04, name, fontsize=7, color=SOFT, va="top")
