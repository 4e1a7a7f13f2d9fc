"""Test the images that the benchmarks read."""

import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.images import jpegs, small_images


def test_generated_images_depend_on_their_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal seeds make equal images, others do not; JPEGs are 500 x 375 and of a photo's size."""
    monkeypatch.delenv("RSA_DATA", raising=False)
    first, second, other = (small_images(3, seed) for seed in (0, 0, 1))
    assert first.fingerprint() == second.fingerprint() != other.fingerprint()
    assert (first.name, first[0].size) == ("noise", (32, 32))
    photos, same, others = (jpegs(2, seed) for seed in (0, 0, 1))
    assert photos.files == same.files
    assert photos.files[0] not in others.files
    with Image.open(io.BytesIO(photos.files[0])) as image:
        assert (image.format, image.size) == ("JPEG", (500, 375))
    assert 20_000 < len(photos.files[0]) < 200_000
    assert photos.source == "generated JPEGs"


@pytest.mark.real_data
def test_photos_are_taken_where_there_are_any(rsa_data: Path) -> None:
    """If more are asked for than there are, they are repeated."""
    photos = jpegs(601, 0)
    assert photos.source == "clothing_mini"
    assert photos.files[0] == photos.files[600] != photos.files[1]
