import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsa_eval.evaluators.shared.held_out_labels import multi_label_rows
from rsa_eval.evaluators.shared.multi_label import (
    multi_label_validation,
    one_against_rest,
    open_multi_label,
)
from rsa_eval.evaluators.shared.multi_label_settings import MultiLabelConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

VOC = MultiLabelConfig(name="animals", layout="voc")
CSV = MultiLabelConfig(name="pets", layout="csv", train_split="train")


def _data(root: Path, **changes: Any) -> DataConfig:
    tree = {"name": "imagefolder", "root": root, "image_size": 8} | changes
    return parse_tree(DataConfig, tree, "test")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three images in VOC's layout: a cat, a cat and a difficult dog, neither."""
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for number in (5, 7, 9):
        Image.new("RGB", (8, 8), (20 * number,) * 3).save(
            tmp_path / f"JPEGImages/00000{number}.jpg"
        )
    lists = tmp_path / "ImageSets/Main"
    (lists / "cat_trainval.txt").write_text("000005  1\n000007  1\n000009 -1\n")
    (lists / "dog_trainval.txt").write_text("000005 -1\n000007  0\n000009 -1\n")
    (lists / "dog_train.txt").write_text("000005 -1\n")
    (lists / "trainval.txt").write_text("000005\n000007\n000009\n")
    return tmp_path


def test_the_layout_of_voc(voc: Path) -> None:
    """Every image has 1, -1 or 0 for every class, in the classes' alphabetical order."""
    found = open_multi_label(_data(voc), VOC, "train")
    assert found.class_names == ["cat", "dog"]
    truth = found.truth(torch.tensor(found.images.require_labels()))
    assert truth.tolist() == [[1, -1], [1, 0], [-1, -1]]
    assert found.images.name == "animals"
    assert [found.images[index].getpixel((0, 0))[0] for index in range(3)] == [100, 140, 180]


def test_the_layout_of_tables(tmp_path: Path) -> None:
    """SPLIT.csv has a header, a path relative to the root, and a value per class."""
    (tmp_path / "train.csv").write_text("image,cat,dog\na/1.png,1,-1\n\n2.png,+1,0\n")
    found = open_multi_label(_data(tmp_path), CSV, "train")
    truth = found.truth(torch.tensor(found.images.require_labels()))
    assert truth.tolist() == [[1, -1], [1, 0]]
    where = [found.images.sources.where(row) for row in range(2)]
    assert where == [str(tmp_path / "a/1.png"), str(tmp_path / "2.png")]


def test_single_labels_as_several() -> None:
    """An image's class is present, all others are absent."""
    pixels = np.zeros((3, 1, 1, 3), np.uint8)
    found = one_against_rest(ImageSet.from_array("made up", pixels, [2, 0, 2], ["a", "b", "c"]))
    assert found.truth(torch.tensor([2, 0, 2])).tolist() == [[-1, -1, 1], [1, -1, -1], [-1, -1, 1]]


def test_the_hash_tells_annotations_apart(voc: Path) -> None:
    """Another value of one image makes another annotation, though the combinations are as many."""
    before = open_multi_label(_data(voc), VOC, "train")
    path = voc / "ImageSets/Main/dog_trainval.txt"
    path.write_text(path.read_text().replace("000007  0", "000007  1"))
    after = open_multi_label(_data(voc), VOC, "train")
    assert before.images.labels == after.images.labels
    assert before.sha256() != after.sha256()


def test_a_part_of_the_images(voc: Path) -> None:
    """num_train_images draws by subset_seed; more than there are is refused."""
    part = open_multi_label(_data(voc, num_train_images=2), VOC, "train")
    assert len(part.images) == 2
    assert part.truth(torch.tensor(part.images.require_labels())).shape == (2, 2)
    with pytest.raises(UserError, match="asked for 4 images of animals, which has 3"):
        open_multi_label(_data(voc, num_train_images=4), VOC, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "000005 -1\n000009 -1\n",
            r"lists different images than 'cat_trainval\.txt' beside it; list the same images in "
            "the same order in both$",
        ),
        ("000005 2\n", "image 1: expected an id and 1, -1 or 0, found '000005 2'"),
        ("000005\n", "image 1: expected an id and 1, -1 or 0, found '000005'"),
    ],
)
def test_damaged_lists_of_voc(voc: Path, text: str, message: str) -> None:
    """A list that is not of the layout is named with the line."""
    (voc / "ImageSets/Main/dog_trainval.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        open_multi_label(_data(voc), VOC, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should start with a line `image,CLASS,…`"),
        ("file,cat\n1.png,1\n", "should start with a line `image,CLASS,…`"),
        ("image,cat,cat\n1.png,1,1\n", "names a class twice, expected each once: cat, cat$"),
        ("image,cat\n", "lists no images; expected one per line below the header$"),
        ("image,cat\n1.png,yes\n", "image 1: expected a path and 1 values of 1, -1 or 0"),
        ("image,cat\n" + 200_000 * "x", r"is not a table of comma-separated values \(field larger"),
        ("image,cat\n1.png\n", "image 1: expected a path and 1 values of 1, -1 or 0"),
    ],
)
def test_damaged_tables(tmp_path: Path, text: str, message: str) -> None:
    """A table that is not of the layout is named with the line."""
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        open_multi_label(_data(tmp_path), CSV, "train")


def test_nothing_there(tmp_path: Path) -> None:
    """The error says what to download and which layout is expected."""
    with pytest.raises(UserError, match=r"contains no CLASS_test\.txt; data\.root should be"):
        open_multi_label(_data(tmp_path), VOC, "test")
    with pytest.raises(UserError, match=r"cannot read '.*train\.csv': No such file"):
        open_multi_label(_data(tmp_path), CSV, "train")


def test_published_validation_images(voc: Path) -> None:
    """VOC's val by default, as places among the training images, of which it is a part."""
    lists = voc / "ImageSets/Main"
    for name, values in (("cat", "1 -1"), ("dog", "0 -1")):
        first, second = values.split()
        (lists / f"{name}_val.txt").write_text(f"000007 {first}\n000009 {second}\n")
    train = open_multi_label(_data(voc), VOC, "train")
    found = multi_label_validation(_data(voc), VOC, train)
    assert found is not None
    assert found.tolist() == [1, 2]
    both = 0
    for seed in range(8):
        few = _data(voc, num_train_images=2, subset_seed=seed)
        keys = open_multi_label(few, VOC, "train").images.keys()
        if "JPEGImages/000005.jpg" in keys:
            rows = multi_label_validation(few, VOC, open_multi_label(few, VOC, "train"))
            assert rows is not None
            assert [keys[row] for row in rows] == [keys[1]]
            both += 1
    assert both


def test_validation_images_of_tables(tmp_path: Path) -> None:
    """A table has none unless its split is named; each must be a training image."""
    (tmp_path / "train.csv").write_text("image,cat\n1.png,1\n2.png,-1\n3.png,1\n")
    train = open_multi_label(_data(tmp_path), CSV, "train")
    assert multi_label_validation(_data(tmp_path), CSV, train) is None
    named = CSV.model_copy(update={"val_split": "held"})
    (tmp_path / "held.csv").write_text("image,cat\n3.png,1\n")
    found = multi_label_validation(_data(tmp_path), named, train)
    assert found is not None
    assert found.tolist() == [2]
    for text, message in (
        ("image,cat\n4.png,1\n3.png,1\n", r"1 images .* 'held' of pets are not in 'train': 4\.png"),
        ("image,dog\n3.png,1\n", "training and validation images of pets differ in classes: cat"),
        ("image,cat\n1.png,1\n2.png,-1\n3.png,1\n", "3 of 3 training images of pets are"),
    ):
        (tmp_path / "held.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            multi_label_validation(_data(tmp_path), named, train)


@pytest.mark.parametrize("num_images", [2, 7, 60, 150])
def test_a_share_of_all_images_that_holds_out_none(num_images: int) -> None:
    """The error speaks of images alone, and the share that it names leaves fewer than all."""
    truth = np.ones((num_images, 1), np.int8)

    def error_at(percent: float, message: str) -> float:
        with pytest.raises(UserError, match=message) as refused:
            multi_label_rows(truth, None, ["cat"], percent, 0, key="share")
        return float(re.findall(message, str(refused.value))[0])

    enough = error_at(
        0.001,
        rf"^0\.001 % of {num_images} training images holds out none for selection; set "
        r"share=(\d+), which holds out one or more$",
    )
    left = error_at(enough, r"none of the (\d+) other training images is not of class cat")
    assert 0 < left < num_images
