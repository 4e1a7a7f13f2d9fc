"""Lists of VOC2007 must have their publisher's numbers, and their images must be there."""

from pathlib import Path
from typing import Any

import pytest
import transfer_trees

from rsa_eval.evaluators.shared.multi_label import open_multi_label
from rsa_eval.evaluators.shared.multi_label_settings import MultiLabelConfig
from rsa_eval.evaluators.shared.published_lists import PUBLISHED_LISTS
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

VOC2007 = MultiLabelConfig(name="voc2007", layout="voc")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A small tree in VOC's layout."""
    transfer_trees.voc2007(tmp_path)
    return tmp_path / "VOCdevkit" / "VOC2007"


def _data(root: Path, **changes: Any) -> DataConfig:
    tree = {"name": "imagefolder", "root": root, "image_size": 8} | changes
    return parse_tree(DataConfig, tree, "test")


def test_published_numbers() -> None:
    """The images of train and val are those of trainval; with test they are 9,963."""
    counts = PUBLISHED_LISTS["voc2007"].images
    assert counts["train"] + counts["val"] == counts["trainval"]
    assert counts["trainval"] + counts["test"] == 9_963
    assert PUBLISHED_LISTS["voc2007"].num_classes == 20


@pytest.mark.parametrize(("split", "name"), [("train", "trainval"), ("test", "test")])
def test_a_part_of_the_set_is_refused(voc: Path, split: Any, name: str) -> None:
    """Under its published name alone: images of one's own have another one."""
    published = {"trainval": "5,011", "test": "4,952"}[name]
    message = rf"'{name}' in .* classes, as published voc2007 has {published} and 20; move '.*2007'"
    with pytest.raises(UserError, match=message):
        open_multi_label(_data(voc), VOC2007, split)
    own = VOC2007.model_copy(update={"name": "mine"})
    assert len(open_multi_label(_data(voc), own, split).images) in (12, 24)


@pytest.mark.usefixtures("small_counts")
def test_a_subset_is_drawn_of_the_whole_set(voc: Path) -> None:
    """The numbers are those of the lists, not those of the images asked for."""
    assert len(open_multi_label(_data(voc), VOC2007, "train").images) == 24
    assert len(open_multi_label(_data(voc, num_train_images=7), VOC2007, "train").images) == 7


@pytest.mark.usefixtures("small_counts")
def test_a_class_or_an_image_is_missing(voc: Path) -> None:
    """A list of a class, one image of many, and a repeated one in its place."""
    lists = voc / "ImageSets" / "Main"
    (voc / "JPEGImages" / "000003.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 24 images .* are not in '.*': JPEGImages/000003"):
        open_multi_label(_data(voc), VOC2007, "train")
    assert len(open_multi_label(_data(voc), VOC2007, "test").images) == 12
    for name in ("cat", "dog"):
        path = lists / f"{name}_trainval.txt"
        path.write_text(path.read_text().replace("000003", "000004"))
    with pytest.raises(UserError, match="have 23 images and 2 classes, as published"):
        open_multi_label(_data(voc), VOC2007, "train")
    (lists / "dog_test.txt").unlink()
    with pytest.raises(UserError, match="have 12 images and 1 classes, as published"):
        open_multi_label(_data(voc), VOC2007, "test")
