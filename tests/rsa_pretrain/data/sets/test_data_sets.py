import io
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.open_images import open_images, published_counts
from rsa_pretrain.data.sets import imagenet, stl10
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError


def configure(name, root, **settings):
    """Settings of a data set at 32 px."""
    return DataConfig(name=name, root=root, image_size=32, **settings)


def jpeg(colour=(10, 20, 30)):
    """A small JPEG file's bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path, content):
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# STL-10


@pytest.fixture
def stl10_root(tmp_path, monkeypatch):
    """The binary files with 20 training, 10 test and 30 unlabelled random images."""
    sizes = {"train": 20, "test": 10, "unlabeled": 30}
    monkeypatch.setattr(stl10, "NUM_IMAGES", sizes)
    generator = np.random.default_rng(0)
    for part, count in sizes.items():
        pixels = generator.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        write(tmp_path / "stl10_binary" / f"{part}_X.bin", pixels.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10 + 1
        write(tmp_path / "stl10_binary" / f"{part}_y.bin", labels.tobytes())
    return tmp_path


def test_stl10_images_are_those_that_torchvision_reads(stl10_root, monkeypatch):
    """Pixels and labels of all splits agree with the independent reader's."""
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda _: True)
    config = configure("stl10", stl10_root)
    for split, theirs in (("pretrain", "train+unlabeled"), ("train", "train"), ("test", "test")):
        expected = torchvision.datasets.STL10(stl10_root, split=theirs)
        images = open_images(config, split)
        assert len(images) == len(expected)
        for index, (image, label) in enumerate(expected):
            assert np.array_equal(np.asarray(images[index]), np.asarray(image))
            assert images.labels[index] == label


def test_stl10_is_read_into_memory(stl10_root):
    """All pixels at once, or those of a subset, are those of the images."""
    whole = open_images(configure("stl10", stl10_root), "pretrain")
    for images in (whole, whole.random_subset(7, seed=0)):
        array = images.array()
        assert array.shape == (len(images), 96, 96, 3)
        for index, pixels in enumerate(array):
            assert np.array_equal(pixels, np.asarray(images[index]))


def test_stl10_pretrains_on_more_than_it_evaluates_on(stl10_root):
    """Unlabelled images are in the pretraining split alone, after the labelled ones."""
    config = configure("stl10", stl10_root)
    pretrain, train = open_images(config, "pretrain"), open_images(config, "train")
    assert pretrain.labels[:20] == train.require_labels()
    assert pretrain.labels[20:] == [UNLABELLED] * 30
    with pytest.raises(UserError, match="published without"):
        pretrain.require_labels()
    assert pretrain.hold_out(10, seed=0)[1].class_names == train.class_names


def test_stl10_is_small_to_copy_into_workers(stl10_root):
    """A pickled set holds names and numbers, no pixels."""
    images = open_images(configure("stl10", stl10_root), "pretrain")
    assert len(pickle.dumps(images)) < 27_648
    copy = pickle.loads(pickle.dumps(images))
    assert np.array_equal(np.asarray(copy[40]), np.asarray(images[40]))


def test_stl10_folds_are_read(stl10_root):
    """Ten lines of indices; a line missing or an index too large is a user error."""
    path = stl10_root / "stl10_binary" / "fold_indices.txt"
    path.write_text("".join(f"{fold} {fold + 10} \n" for fold in range(10)))
    assert stl10.read_folds(stl10_root) == [[fold, fold + 10] for fold in range(10)]
    path.write_text("0 1\n" * 9 + "0 20\n")
    with pytest.raises(UserError, match="names image 20 of 20"):
        stl10.read_folds(stl10_root)
    for damaged in ("0 1\n" * 9, "0 1\n" * 9 + "0 " + 5000 * "9", "0 1\n" * 9 + "0 -1"):
        path.write_text(damaged)
        with pytest.raises(UserError, match="10 lines of indices"):
            stl10.read_folds(stl10_root)


def test_stl10_trains_on_one_fold(stl10_root):
    """The fold's images in its order, with their labels; test and pretraining images stay whole."""
    path = stl10_root / "stl10_binary" / "fold_indices.txt"
    path.write_text("".join(f"{fold + 10} {fold} \n" for fold in range(10)))
    whole = open_images(configure("stl10", stl10_root), "train")
    config = configure("stl10", stl10_root, stl10_fold=3)
    fold = open_images(config, "train")
    assert fold.labels == [whole.labels[13], whole.labels[3]]
    assert np.array_equal(np.asarray(fold[0]), np.asarray(whole[13]))
    assert fold.fingerprint() != whole.fingerprint()
    assert len(open_images(config, "test")) == 10
    assert len(open_images(config, "pretrain")) == 50


def test_a_damaged_stl10_says_what_to_download(stl10_root):
    """A missing and a cut file are named with the archive and the layout."""
    config = configure("stl10", stl10_root)
    unlabelled = stl10_root / "stl10_binary" / "unlabeled_X.bin"
    os.truncate(unlabelled, 1000)
    with pytest.raises(UserError, match=r"1000 bytes, expected 829440; move '.*stl10_binary'"):
        open_images(config, "pretrain")
    unlabelled.unlink()
    with pytest.raises(UserError, match=r"no '.*run `rsa-pretrain download stl10 /.*`"):
        open_images(config, "pretrain")
    assert len(open_images(config, "train")) == 20


# Tiny ImageNet

TINY_CLASSES = [f"n{number:08}" for number in range(200)]


@pytest.fixture
def tiny_root(tmp_path):
    """The distributed tree with one training image per class and 400 validation images."""
    folder = tmp_path / "tiny-imagenet-200"
    for name in TINY_CLASSES:
        write(folder / "train" / name / "images" / f"{name}_0.JPEG", jpeg())
        write(folder / "train" / name / f"{name}_boxes.txt", b"0\t0\t1\t1\n")
    lines = []
    for number in range(400):
        write(folder / "val" / "images" / f"val_{number}.JPEG", jpeg())
        lines.append(f"val_{number}.JPEG\t{TINY_CLASSES[number * 7 % 200]}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(reversed(TINY_CLASSES)))
    return tmp_path


def labels_by_name(images):
    """A set's class names by file name."""
    names = (images.sources.path(row).rpartition("/")[2] for row in images.rows.tolist())
    return {
        name: images.class_names[label]
        for name, label in zip(names, images.require_labels(), strict=True)
    }


def test_tiny_imagenet_as_distributed(tiny_root):
    """Annotations label the validation images; box files are not images; classes are sorted."""
    config = configure("tiny_imagenet", tiny_root)
    train, test = open_images(config, "train"), open_images(config, "test")
    assert train.class_names == test.class_names == TINY_CLASSES
    assert train.labels == list(range(200))
    expected = {f"val_{number}.JPEG": TINY_CLASSES[number * 7 % 200] for number in range(400)}
    assert labels_by_name(test) == expected


def test_tiny_imagenet_is_read_into_memory(tiny_root):
    """A subset's pixels are those of its images; another size and a broken file are named."""
    images = open_images(configure("tiny_imagenet", tiny_root), "train").random_subset(3, seed=0)
    paths = [images.sources.path(row) for row in images.rows]
    for colour, path in enumerate(paths):
        Image.new("RGB", (64, 64), (90, 7, 40 * colour)).save(path)
    for index, pixels in enumerate(images.array()):
        assert np.array_equal(pixels, np.asarray(images[index]))
    Image.new("RGB", (64, 60)).save(paths[1])
    with pytest.raises(UserError, match=rf"'{paths[1]}' has 60 x 64 pixels.*have 64 x 64"):
        images.array()
    Path(paths[1]).write_bytes(b"")
    with pytest.raises(UserError, match=rf"^cannot decode '{paths[1]}'"):
        images.array()


def test_tiny_imagenet_sorted_into_folders(tiny_root):
    """The ImageFolder form gives the same labels, from the folder itself as root too."""
    folder = tiny_root / "tiny-imagenet-200"
    expected = labels_by_name(open_images(configure("tiny_imagenet", tiny_root), "test"))
    for name, class_name in expected.items():
        (folder / "val" / class_name).mkdir(exist_ok=True)
        (folder / "val" / "images" / name).rename(folder / "val" / class_name / name)
    assert labels_by_name(open_images(configure("tiny_imagenet", folder), "test")) == expected


def test_tiny_imagenet_s_system_folders_and_empty_classes_are_named(tiny_root, caplog):
    """A system folder is not a class; a class without images keeps its number and is reported."""
    config = configure("tiny_imagenet", tiny_root)
    before = open_images(config, "train")
    (tiny_root / "tiny-imagenet-200" / "train" / "__MACOSX").mkdir()
    shutil.rmtree(tiny_root / "tiny-imagenet-200" / "train" / before.class_names[0] / "images")
    images = open_images(config, "train")
    assert images.class_names == before.class_names
    assert images.labels == [label for label in before.labels if label != 0]
    assert "__MACOSX (hidden, or made by a system)" in caplog.text
    assert f"of 1 classes: {before.class_names[0]}" in caplog.text


def test_tiny_imagenet_faults_are_named(tiny_root):
    """An image without annotation, a class too few, no annotations and no data are user errors."""
    config, folder = configure("tiny_imagenet", tiny_root), tiny_root / "tiny-imagenet-200"
    (folder / "val" / "images" / "val_9.JPEG").unlink()
    with pytest.raises(UserError, match=r"disagree on 1 files, the first is images/val_9\.JPEG"):
        open_images(config, "test")
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(UserError, match=r"needs '.*val_annotations\.txt'"):
        open_images(config, "test")
    (folder / "train" / TINY_CLASSES[0]).rename(folder / "gone")
    with pytest.raises(UserError, match="has 199 class folders, Tiny ImageNet has 200"):
        open_images(config, "train")
    with pytest.raises(UserError, match=r"run `rsa-pretrain download tiny_imagenet /.*nowhere`"):
        open_images(configure("tiny_imagenet", tiny_root / "nowhere"), "train")


# ImageNet


@pytest.fixture
def imagenet_root(tmp_path, monkeypatch):
    """A tree of six classes, posing as the thousand, with two and one images each."""
    monkeypatch.setattr(imagenet, "NUM_CLASSES", 6)
    for number in range(6):
        for split, count in (("train", 2), ("val", 1)):
            for index in range(count):
                write(
                    tmp_path / split / f"n{number:08}" / f"{index}.JPEG", jpeg((40 * number,) * 3)
                )
    return tmp_path


def test_imagenet_tree(imagenet_root):
    """Classes are the sorted folder names, in both splits; images are those of their folders."""
    config = configure("imagenet", imagenet_root)
    train, test = open_images(config, "pretrain"), open_images(config, "test")
    assert train.labels == [number // 2 for number in range(12)]
    assert test.labels == list(range(6))
    for index, label in enumerate(train.labels):
        assert abs(train[index].getpixel((8, 6))[0] - 40 * label) <= 2


def test_imagenet_is_not_decoded_at_the_start(imagenet_root):
    """A damaged file stops its first read, by name, not the opening."""
    (imagenet_root / "train/n00000001/0.JPEG").write_bytes(b"no jpeg")
    images = open_images(configure("imagenet", imagenet_root), "train")
    with pytest.raises(UserError, match=r"cannot decode '.*n00000001/0\.JPEG'.*data-check"):
        images[2]


def test_imagenet_with_other_classes_is_refused(imagenet_root):
    """The number of folders found is in the message."""
    (imagenet_root / "train" / "n00000000").rename(imagenet_root / "gone")
    with pytest.raises(UserError, match="has 5 class folders, ImageNet-1K has 6"):
        open_images(configure("imagenet", imagenet_root), "train")


def test_imagenet_folders_of_other_names_are_refused(imagenet_root):
    """Folders named by number would sort, and so number the classes, otherwise than training's."""
    (imagenet_root / "val" / "n00000003").rename(imagenet_root / "val" / "3")
    with pytest.raises(UserError, match=r"contains the folder '3'; expected .* WordNet id"):
        open_images(configure("imagenet", imagenet_root), "test")


def test_imagenet_classes_of_both_splits_are_the_same(imagenet_root):
    """Another class in one split would number those after it otherwise."""
    (imagenet_root / "val" / "n00000003").rename(imagenet_root / "val" / "n00000009")
    message = r"train' lacks 1 classes of '.*val', .*: n00000009; complete '.*train' or remove them"
    with pytest.raises(UserError, match=message):
        open_images(configure("imagenet", imagenet_root), "test")


def test_imagenet_is_tested_on_without_its_training_images(imagenet_root):
    """A whole validation split numbers its classes as training would."""
    (imagenet_root / "train").rename(imagenet_root / "gone")
    assert open_images(configure("imagenet", imagenet_root), "test").labels == list(range(6))


def test_system_folders_are_no_classes_of_imagenet(imagenet_root, caplog):
    """They are left out and named; the others keep their numbers."""
    before = open_images(configure("imagenet", imagenet_root), "train")
    (imagenet_root / "train" / "__MACOSX").mkdir()
    write(imagenet_root / "train/n00000001/@eaDir/0.JPEG", jpeg())
    images = open_images(configure("imagenet", imagenet_root), "train")
    assert images.fingerprint() == before.fingerprint()
    assert "__MACOSX (hidden" in caplog.text
    assert "n00000001/@eaDir (hidden" in caplog.text


def test_imagenet_classes_that_are_links_are_read_once(imagenet_root, caplog):
    """A link out of the tree is a class; one to another class is named, and the class is empty."""
    for name, target in (("n00000001", "../moved"), ("n00000002", "n00000000")):
        (imagenet_root / "train" / name).rename(imagenet_root / f"moved{name[-1]}")
        os.symlink(
            target + name[-1] if "moved" in target else target, imagenet_root / "train" / name
        )
    images = open_images(configure("imagenet", imagenet_root), "train")
    assert images.labels == [0, 0, 1, 1, 3, 3, 4, 4, 5, 5]
    assert "n00000002 (a link to 'n00000000', which is there already)" in caplog.text
    assert re.search("no image below '.*train' of 1 classes: n00000002", caplog.text)


def test_imagenet_has_a_thousand_classes(tmp_path):
    """Without a test's interference the expected number is the published one."""
    (tmp_path / "train" / "n00000000").mkdir(parents=True)
    with pytest.raises(UserError, match="has 1 class folders, ImageNet-1K has 1000"):
        open_images(configure("imagenet", tmp_path), "train")


def test_flat_validation_images_say_what_to_do(imagenet_root):
    """The tar's flat layout is recognised and explained."""
    for path in (imagenet_root / "val").glob("*/*"):
        number = int(path.parent.name[1:]) + 1
        path.rename(imagenet_root / "val" / f"ILSVRC2012_val_{number:08}.JPEG")
        path.parent.rmdir()
    with pytest.raises(UserError, match=r"no class folders.*move each image to .*val/WNID/"):
        open_images(configure("imagenet", imagenet_root), "test")


@pytest.mark.parametrize("name", ["imagenet", "imagenet100"])
def test_missing_imagenet_says_where_to_get_it(tmp_path, name):
    """Address and layout are in the message."""
    with pytest.raises(UserError, match=r"https://image-net\.org.*train/WNID/\*\.JPEG"):
        open_images(configure(name, tmp_path), "train")


def test_imagenet100_takes_the_listed_classes_alone(imagenet_root):
    """Classes are numbered by sorted id, regardless of the order of the list."""
    listed = imagenet_root / "classes.txt"
    listed.write_text("n00000004\nn00000001\n")
    config = configure("imagenet100", imagenet_root, class_list=listed)
    train, test = open_images(config, "train"), open_images(config, "test")
    assert train.class_names == test.class_names == ["n00000001", "n00000004"]
    assert train.labels == [0, 0, 1, 1]
    assert abs(test[1].getpixel((8, 6))[0] - 160) <= 2


def test_imagenet100_names_missing_classes(imagenet_root):
    """The packaged list holds a hundred classes; a tree without them is refused by name."""
    assert len(imagenet.read_class_list(None)) == 100
    with pytest.raises(UserError, match="lacks 100 of the 100 classes of the list: n01558993, "):
        open_images(configure("imagenet100", imagenet_root), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n00000001\ncat\n", "one per line; found 'cat'"),
        ("", "found 'nothing'"),
        ("n00000001\nn00000001\n", "names n00000001 twice"),
    ],
)
def test_malformed_class_lists_are_refused(tmp_path, text, message):
    """Words that are not WordNet ids, an empty list and repetitions are user errors."""
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        imagenet.read_class_list(path)


def test_a_missing_class_list_is_a_user_error(tmp_path):
    """The file is named."""
    with pytest.raises(UserError, match=r"cannot read data\.class_list '.*nowhere\.txt'"):
        imagenet.read_class_list(tmp_path / "nowhere.txt")


def test_many_paths_stay_small(imagenet_root):
    """A pickled set takes little more than the paths' own bytes and two numbers an image."""
    for number in range(500):
        os.link(
            imagenet_root / "train/n00000000/0.JPEG",
            imagenet_root / f"train/n00000000/n00000000_{number:05}.JPEG",
        )
    images = open_images(configure("imagenet", imagenet_root), "train")
    assert len(pickle.dumps(images)) / len(images) < 60


def test_a_class_list_of_one_s_own_has_no_published_number_of_images():
    """ImageNet-100's published numbers are for the usual 100 classes; splits may have any name."""
    usual = configure("imagenet100", "x")
    assert published_counts(usual, "pretrain").images == 126_689
    own = published_counts(configure("imagenet100", "x", class_list="own.txt"), "test")
    assert (own.images, own.classes, own.images_per_class) == (None, None, 50)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "stl10"}, "'stl10' needs data.root"),
        ({"name": "webdataset"}, "needs data.root or data.shards"),
        ({"name": "stl10", "root": ".", "class_list": "a"}, "belongs to 'imagenet100'"),
        ({"name": "stl10", "root": ".", "shards": "a"}, "belongs to 'webdataset'"),
    ],
)
def test_settings_of_other_data_sets_are_refused(tree, message):
    """No setting is accepted and then ignored."""
    with pytest.raises(UserError, match=message):
        parse_tree(DataConfig, tree | {"image_size": 32}, "test")
