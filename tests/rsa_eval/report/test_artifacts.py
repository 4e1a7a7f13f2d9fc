from pathlib import Path

import pytest
from PIL import Image

from rsa_eval.report.artifacts import read_artifacts


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder of records with one image in it and one outside."""
    folder = tmp_path / "records"
    (folder / "knn").mkdir(parents=True)
    for path in (folder / "knn/good.png", tmp_path / "outside.png"):
        Image.new("RGB", (4, 4)).save(path)
    return folder


def test_a_png_beside_the_record_is_embedded(records: Path) -> None:
    """The image's bytes are embedded in the page."""
    (artifact,) = read_artifacts({"neighbours": "knn/good.png"}, records)
    assert artifact.source.startswith("data:image/png;base64,iVBORw0KGgo")
    assert artifact.reason == ""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("knn/absent.png", "missing"),
        ("../outside.png", "outside the record's folder"),
        ("{outside}", "outside the record's folder"),
        ("knn/link.png", "outside the record's folder"),
        ("knn/page.html", "not an image; see the file beside the record"),
        ("knn/script.png", "not a PNG file"),
        ("knn/huge.png", "larger than 2 MiB"),
        ("knn", "missing"),
        ("a\0b.png", "unreadable"),
        ("x" * 5000, "unreadable"),
    ],
)
def test_everything_else_is_named_only(records: Path, path: str, reason: str) -> None:
    """Absent, outside, large and non-PNG files are not embedded."""
    outside = records.parent / "outside.png"
    (records / "knn/link.png").symlink_to(outside)
    (records / "knn/page.html").write_text("<script>")
    (records / "knn/script.png").write_text("<svg onload=alert(1)>")
    (records / "knn/huge.png").write_bytes((records / "knn/good.png").read_bytes() + bytes(2**21))
    (artifact,) = read_artifacts({"what": path.format(outside=outside)}, records)
    assert artifact.source == ""
    assert artifact.reason.startswith(reason)
