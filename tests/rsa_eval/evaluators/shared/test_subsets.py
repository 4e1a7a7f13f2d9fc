from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.shared.subsets import class_counts, draw_percent, subset_rows
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError


def _images(sizes: list[int]) -> ImageSet:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    pixels = np.arange(len(labels) * 3, dtype=np.uint8).reshape(-1, 1, 1, 3)
    return ImageSet.from_array("made up", pixels, labels, [f"c{i}" for i in range(len(sizes))])


@pytest.fixture
def folder(tmp_path: Path) -> ImageSet:
    """Six files in two class folders; one name comes twice."""
    for name in ("a/1.png", "a/2.png", "a/same.png", "b/3.png", "b/4.png", "b/same.png"):
        for split in ("train", "val"):
            (tmp_path / split / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name)
    tree = {"name": "imagefolder", "root": tmp_path, "image_size": 8}
    return open_images(parse_tree(DataConfig, tree, "test"), "train")


@pytest.mark.parametrize(
    ("sizes", "percent", "expected"),
    [
        ([100, 100, 100], 10, [10, 10, 10]),
        ([50, 30, 20], 10, [5, 3, 2]),  # each class's own share
        ([14, 14, 14, 14], 10, [2, 2, 1, 1]),  # 1.4 each: 5.6 in all are 6
        ([200, 4, 4], 1, [2, 1, 1]),  # none without an image
        ([5, 5], 100, [5, 5]),
    ],
)
def test_shares_by_hand(sizes: list[int], percent: float, expected: list[int]) -> None:
    """Each class gives its share, rounded so that the whole comes out, and at least one image."""
    rows = subset_rows(_images(sizes), Subset(percent=percent), seed=3)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert np.bincount(labels[rows]).tolist() == expected
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_holding_out_leaves_every_class_an_image() -> None:
    """With leave=1 a class of one image gives none, whatever the share."""
    labels = np.array([0] * 9 + [1])
    rows = draw_percent(labels, 95, 0, at_least=0, leave=1)
    assert np.bincount(labels[rows], minlength=2).tolist() == [8, 0]


def test_a_number_per_class() -> None:
    """Every class gives that many; one that has fewer is named."""
    images = _images([9, 4, 7])
    chosen = images.select(subset_rows(images, Subset(per_class=4), seed=0))
    assert class_counts(chosen.require_labels()) == {"smallest_class": 4, "largest_class": 4}
    with pytest.raises(UserError, match="class 'c1' of made up has 4"):
        subset_rows(images, Subset(per_class=5), seed=0)


@pytest.mark.parametrize("subset", [Subset(percent=20), Subset(per_class=3)])
def test_the_seed_decides(subset: Subset) -> None:
    """The same seed draws the same images, another one others."""
    images = _images([40, 40])
    first, again, other = (subset_rows(images, subset, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_taken_images_keep_pixels_and_labels() -> None:
    """A subset shows the images of its rows with their classes."""
    images = _images([3, 3])
    chosen = images.select(np.array([1, 5]))
    assert chosen.labels == [0, 1]
    assert [chosen[0].getpixel((0, 0)), chosen[1].getpixel((0, 0))] == [(3, 4, 5), (15, 16, 17)]


def test_a_published_list(folder: ImageSet, tmp_path: Path) -> None:
    """Lines name files, by NAME in SimCLR's layout or by CLASS/NAME, blank lines aside."""
    path = tmp_path / "1percent.txt"
    path.write_text("b/4.png\na/same.png\n\n")
    subset = Subset(list_file=path)
    assert (subset.name, subset.is_drawn) == ("list_1percent", False)
    assert subset_rows(folder, subset, seed=0).tolist() == [2, 4]


def test_a_list_of_bare_names(tmp_path: Path) -> None:
    """SimCLR's lines have no folder: n01440764_10026.JPEG."""
    for wordnet_id in ("n01440764", "n01443537"):
        for number in range(3):
            file = tmp_path / "train" / wordnet_id / f"{wordnet_id}_{number}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file)
    tree = {"name": "imagefolder", "root": tmp_path, "image_size": 8}
    images = open_images(parse_tree(DataConfig, tree, "test"), "train")
    path = tmp_path / "list.txt"
    path.write_text("n01443537_0.JPEG\nn01440764_2.JPEG\n")
    assert subset_rows(images, Subset(list_file=path), seed=0).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected one image per line, as NAME or CLASS/NAME$"),
        ("a/9.png\nb/3.png", "lists 1 images that are not among .*: a/9.png; remove their lines$"),
        ("a/1.png\nb/3.png\na/1.png", "'a/1.png' occurs 2 times and is the name of 1"),
        ("a/1.png\na/2.png", "has no image of 1 of the 2 classes: b; add some to the list$"),
        ("1.png\nsame.png", "'same.png' occurs 1 times and is the name of 2"),
    ],
)
def test_unusable_lists(folder: ImageSet, tmp_path: Path, text: str, message: str) -> None:
    """A list that does not fit the images is refused by name."""
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        subset_rows(folder, Subset(list_file=tmp_path / "list.txt"), seed=0)


def test_a_missing_list(folder: ImageSet, tmp_path: Path) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(UserError, match=r"cannot read '.*nothing\.txt': No such file"):
        subset_rows(folder, Subset(list_file=tmp_path / "nothing.txt"), seed=0)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "exactly one of percent, per_class and list_file, found none$"),
        ({"percent": 1, "per_class": 1}, "list_file, found percent and per_class$"),
        ({"percent": 101}, "percent"),
    ],
)
def test_invalid_subsets(tree: dict[str, Any], message: str) -> None:
    """Exactly one way, within its bounds."""
    with pytest.raises(UserError, match=message):
        parse_tree(Subset, tree, "test")
