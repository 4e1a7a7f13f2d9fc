import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from detection.coco.sets import check_objects, open_coco, training_images
from detection.coco.shapes import CATEGORIES, ShapesConfig, draw_image, rasterise, write_shapes
from rsa_pretrain.plumbing.errors import UserError

CONFIG = ShapesConfig(num_train=3, num_test=2, image_size=64, seed=11)


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """Two sets of one seed are equal file by file; another seed's is not."""
    write_shapes(tmp_path / "a", CONFIG)
    write_shapes(tmp_path / "b", CONFIG)
    write_shapes(tmp_path / "c", ShapesConfig(num_train=3, num_test=2, image_size=64, seed=12))
    first = _contents(tmp_path / "a")
    assert set(first) == {
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        *(f"train/{number:06d}.png" for number in (1, 2, 3)),
        *(f"val/{number:06d}.png" for number in (1, 2)),
    }
    assert _contents(tmp_path / "b") == first
    assert all(_contents(tmp_path / "c")[name] != data for name, data in first.items())
    assert first["train/000001.png"] != first["val/000001.png"]


def test_set_is_coco_format(tmp_path: Path) -> None:
    """Our own loader takes it: images there, sizes true, every image with usable instances."""
    write_shapes(tmp_path / "set", CONFIG)
    for split, count in (("train", 3), ("val", 2)):
        annotations = tmp_path / "set" / "annotations" / f"instances_{split}.json"
        coco = open_coco(annotations, tmp_path / "set" / split)
        check_objects(coco.annotations_path, coco.tree)
        images = training_images(coco)
        assert len(images) == count
        assert all(Image.open(image.path).size == (image.width, image.height) for image in images)
        tree = json.loads(annotations.read_text(encoding="utf-8"))
        assert [category["name"] for category in tree["categories"]] == list(CATEGORIES)


def test_polygons_are_where_the_pixels_are() -> None:
    """Inside its outline, found by an even-odd test, a shape differs in colour from outside."""
    size = 96
    for seed in range(5):
        pixels, shapes = draw_image(size, np.random.default_rng(seed))
        rows, columns = np.mgrid[:size, :size]
        centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
        masks = [
            Outline(polygon).contains_points(centres).reshape(size, size) for _, polygon in shapes
        ]
        background = pixels[~np.any(masks, axis=0)].mean(axis=0)
        for mask in masks:
            assert mask.sum() > 30
            inside = pixels[mask].astype(float)
            # A pixel belongs to whichever mean colour it is nearer to.
            to_shape = np.linalg.norm(pixels - inside.mean(axis=0), axis=2)
            to_background = np.linalg.norm(pixels - background, axis=2)
            assert (to_shape < to_background)[mask].mean() > 0.95


def test_shapes_do_not_overlap() -> None:
    """Each pixel belongs to one shape at most, so the outlines are the visible parts."""
    for seed in range(10):
        _, shapes = draw_image(64, np.random.default_rng(seed))
        assert shapes
        assert np.sum([rasterise(polygon, 64) for _, polygon in shapes], axis=0).max() == 1


def test_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    """Nothing is overwritten; an empty folder is filled."""
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="not an empty folder"):
        write_shapes(tmp_path, CONFIG)
    assert _contents(tmp_path) == {"note.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    write_shapes(tmp_path / "empty", CONFIG)
    assert len(_contents(tmp_path / "empty")) == 7


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ShapesConfig(num_train=1, num_test=1, image_size=16, seed=0), "below 32"),
        (ShapesConfig(num_train=0, num_test=1, image_size=64, seed=0), "at least one"),
    ],
)
def test_impossible_sets_are_refused(tmp_path: Path, config: ShapesConfig, message: str) -> None:
    """The error comes before anything is written."""
    with pytest.raises(UserError, match=message):
        write_shapes(tmp_path / "set", config)
    assert list(tmp_path.iterdir()) == []
