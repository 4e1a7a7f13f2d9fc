import base64
import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.pictures.page import Card, DrawnObject, Page, Panel, category_colour, write_page


def _write(tmp_path: Path, drawn: DrawnObject, threshold: float | None = None) -> str:
    page = Page(title="t", subtitle="s", categories=["a", "b"], threshold=threshold)
    photo = Image.new("RGB", (480, 240), (9, 9, 9))
    write_page(page, [Card("photo", photo, [Panel("found", [drawn])])], tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_page_draws_the_mask_where_it_is(tmp_path: Path) -> None:
    """The mask's picture is cut to the mask, its inside faint, its outline firm."""
    square = [4.0, 4.0, 16.0, 4.0, 16.0, 14.0, 4.0, 14.0]
    text = _write(tmp_path, DrawnObject(1, "b", (4.0, 4.0, 16.0, 14.0), segmentation=[square]))
    found = re.search(
        r'class="mask" x="4" y="4" width="12" height="10" href="data:image/png;base64,([^"]+)"',
        text,
    )
    assert found is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGBA"))
    assert picture.shape == (10, 12, 4)
    assert {tuple(pixel[:3]) for pixel in picture.reshape(-1, 4)} == {category_colour(1)}
    assert (picture[2:-2, 2:-2, 3] == picture[5, 5, 3]).all()
    assert picture[5, 5, 3] < picture[0, 0, 3] == picture[1, 1, 3] == 255
    assert 'rect x="4.0" y="4.0" width="12.0" height="10.0"' in text


def test_slider_is_there_for_scores(tmp_path: Path) -> None:
    """A page of predictions starts its slider at the threshold; one of annotations has none."""
    drawn = DrawnObject(0, "a 0.30", (1.0, 1.0, 9.0, 9.0), score=0.3)
    text = _write(tmp_path, drawn, threshold=0.25)
    assert 'id="threshold" min="0" max="1" step="0.01"\nvalue="0.25"' in text
    assert text.count('data-score="0.3"') == 2
    assert 'id="threshold"' not in _write(tmp_path, drawn)


def test_objects_carry_what_found_them(tmp_path: Path) -> None:
    """Mark and name of a target have its detection's score, or nothing where there is none."""
    box = (1.0, 1.0, 9.0, 9.0)
    text = _write(
        tmp_path, DrawnObject(0, "a", box, is_target=True, found_score=0.75), threshold=0.5
    )
    assert text.count(' data-found="0.75"') == 2
    text = _write(tmp_path, DrawnObject(0, "a", box, is_target=True), threshold=0.5)
    assert text.count(' data-found=""') == 2
    assert ' data-found="' not in _write(tmp_path, DrawnObject(0, "a", box))


def test_page_escapes_text(tmp_path: Path) -> None:
    """A label cannot leave its element or its attribute."""
    text = _write(tmp_path, DrawnObject(0, "<script>\"'&", (1.0, 1.0, 9.0, 9.0)))
    assert '<script>"' not in text
    assert text.count("&lt;script&gt;&#34;&#39;&amp;") == 2


def test_neighbouring_categories_differ_in_colour() -> None:
    """Of 80 categories no two have the same colour, and neighbours are far apart."""
    colours = [category_colour(index) for index in range(80)]
    assert len(set(colours)) == 80
    for first, second in pairwise(colours):
        assert np.abs(np.subtract(first, second)).sum() > 100


@pytest.mark.parametrize(
    ("size", "shown"), [((120, 60), "480 240"), ((500, 1000), "400 800"), ((640, 480), "640 480")]
)
def test_photographs_fit_a_page(tmp_path: Path, size: tuple[int, int], shown: str) -> None:
    """Small ones are enlarged and large ones reduced, marks with them: half of the width here."""
    page = Page(title="t", subtitle="s", categories=["a"])
    drawn = DrawnObject(0, "a", (0.0, 0.0, size[0] / 2, 4.0))
    card = Card("photo", Image.new("RGB", size), [Panel("", [drawn])])
    write_page(page, [card], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f'viewBox="0 0 {shown}"' in text
    assert f'<rect x="0.0" y="0.0" width="{int(shown.split()[0]) / 2}"' in text
