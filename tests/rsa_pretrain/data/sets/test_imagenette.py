"""Imagenette, from a small tree in its published layout."""

import shutil

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Imagenette

from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.sets.imagenette import IMAGENETTE_ARCHIVE
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.errors import UserError

CLASSES = sorted(Imagenette._WNID_TO_CLASS)


@pytest.fixture
def config(tmp_path):
    """Settings that name a small tree in the published layout: 2 and 1 images per class."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for name in CLASSES:
            folder = tmp_path / "imagenette2-160" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (20, 27, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{number}.JPEG")
    (tmp_path / "imagenette2-160" / "noisy_imagenette.csv").write_text("path\n")
    return DataConfig(name="imagenette", root=tmp_path, image_size=128, eval_resize=128)


@pytest.mark.parametrize(
    ("split", "theirs"), [("pretrain", "train"), ("train", "train"), ("test", "val")]
)
def test_images_are_those_that_torchvision_reads(config, split, theirs):
    """Pixels and labels of all splits agree with the independent reader's."""
    expected = Imagenette(config.root, theirs, "160px")
    images = open_images(config, split)
    assert images.class_names == CLASSES
    assert len(images) == len(expected)
    for index, (image, label) in enumerate(expected):
        assert np.array_equal(np.asarray(images[index]), np.asarray(image))
        assert images.labels[index] == label


def test_the_archive_is_the_published_one():
    """Address and checksum are torchvision's."""
    assert (IMAGENETTE_ARCHIVE.url, IMAGENETTE_ARCHIVE.md5) == Imagenette._ARCHIVES["160px"]


def test_system_folders_and_empty_classes_are_named(config, caplog):
    """A system folder is not a class; a class without images keeps its number and is reported."""
    train = config.root / "imagenette2-160" / "train"
    (train / "__MACOSX").mkdir()
    shutil.rmtree(train / CLASSES[0])
    (train / CLASSES[0]).mkdir()
    images = open_images(config, "train")
    assert images.class_names == CLASSES
    assert images.labels == [label for label in range(1, 10) for _ in range(2)]
    assert "__MACOSX (hidden, or made by a system)" in caplog.text
    assert f"of 1 classes: {CLASSES[0]}" in caplog.text


def test_a_damaged_file_stops_its_first_read(config):
    """By name, not at the opening."""
    (config.root / "imagenette2-160" / "val" / CLASSES[1] / f"{CLASSES[1]}_0.JPEG").write_bytes(b"")
    images = open_images(config, "test")
    with pytest.raises(UserError, match=rf"cannot decode '.*{CLASSES[1]}_0\.JPEG'.*data-check"):
        images[1]


def test_other_classes_are_refused(config):
    """A class too few or too many would number those after it differently; each is named."""
    folder = config.root / "imagenette2-160" / "val"
    (folder / CLASSES[0]).rename(folder / "n00000001")
    message = rf"has 10 class folders, .* missing or unknown are n00000001, {CLASSES[0]}; "
    with pytest.raises(UserError, match=message + r"move '.*imagenette2-160' away and run `rsa-"):
        open_images(config, "test")
    (folder / "n00000001").rename(config.root / "elsewhere")
    with pytest.raises(UserError, match=r"has 9 class folders, not Imagenette's 10: .*imagefolder"):
        open_images(config, "test")


def test_a_tree_without_images_is_refused(config):
    """Class folders alone are no data set."""
    for path in (config.root / "imagenette2-160" / "val").glob("*/*.JPEG"):
        path.unlink()
    with pytest.raises(UserError, match=r"no image below '.*val'; move .* download imagenette"):
        open_images(config, "test")


def test_a_missing_folder_says_what_to_do(config):
    """The command that downloads, or the root that contains the folder."""
    other = config.model_copy(update={"root": config.root / "nowhere"})
    with pytest.raises(UserError, match=r"not a folder; run `rsa-pretrain download imagenette /"):
        open_images(other, "train")
    inside = config.model_copy(update={"root": config.root / "imagenette2-160"})
    with pytest.raises(UserError, match=rf"the folder that contains it: '{config.root}'"):
        open_images(inside, "train")
