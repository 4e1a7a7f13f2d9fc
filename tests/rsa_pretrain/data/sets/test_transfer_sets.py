"""The data sets of the transfer suite, from small trees in their published layouts."""

import io
import os
import pickle
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torchvision
import transfer_trees
import yaml

from rsa_pretrain.__main__ import main
from rsa_pretrain.data.check import check_split
from rsa_pretrain.data.image_sources import PixelSources
from rsa_pretrain.data.open_images import normalisation, open_images
from rsa_pretrain.data.sets import DATA_SETS, Counts, data_set
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.config.shipped import shipped_configs
from rsa_pretrain.plumbing.errors import UserError

NEEDS_H5PY = pytest.mark.skipif(find_spec("h5py") is None, reason="h5py is not installed")
NAMES = [
    pytest.param(name, marks=NEEDS_H5PY if name == "pcam" else ())
    for name in transfer_trees.WRITERS
]
WITH_VAL = ("fgvc_aircraft", "dtd", "flowers102", "eurosat", "resisc45", "pcam")


def configure(name, root, **settings):
    """Settings of a data set at 32 px."""
    return DataConfig(name=name, root=root, image_size=32, **settings)


@pytest.fixture(scope="session")
def roots():
    """The folders of the trees that are written, by the function that wrote them."""
    return {}


@pytest.fixture
def whole(tmp_path_factory, roots, small_counts):
    """A function that returns the settings of a set's tree, which all tests share."""

    def find(name, **settings):
        writer = transfer_trees.WRITERS[name]
        if writer not in roots:
            roots[writer] = tmp_path_factory.mktemp(name)
            writer(roots[writer])
        return configure(name, roots[writer], **settings)

    return find


@pytest.fixture
def alter():
    """A function that gives a file other content, or removes it, until the test ends."""
    before = {}

    def change(path, content):
        before.setdefault(path, path.read_bytes())
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    yield change
    for path, content in before.items():
        path.unlink(missing_ok=True)  # it may be a link to another image
        path.write_bytes(content)


def classes_by_file(images):
    """Return the class name of each image, by its key."""
    labels = images.require_labels()
    return {
        key: images.class_names[label] for key, label in zip(images.keys(), labels, strict=True)
    }


# What torchvision calls the parts of a split, in sequence.
THEIRS = {
    "food101": ("Food101", {"train": ("train",), "test": ("test",)}),
    "stanford_cars": ("StanfordCars", {"train": ("train",), "test": ("test",)}),
    "fgvc_aircraft": (
        "FGVCAircraft",
        {"train": ("trainval",), "val": ("val",), "test": ("test",)},
    ),
    "dtd": ("DTD", {"train": ("train", "val"), "val": ("val",), "test": ("test",)}),
    "oxford_pets": ("OxfordIIITPet", {"train": ("trainval",), "test": ("test",)}),
    "flowers102": ("Flowers102", {"train": ("train", "val"), "val": ("val",), "test": ("test",)}),
    "gtsrb": ("GTSRB", {"train": ("train",), "test": ("test",)}),
    "svhn": ("SVHN", {"train": ("train",), "test": ("test",)}),
    "pcam": ("PCAM", {"train": ("train", "val"), "val": ("val",), "test": ("test",)}),
}
COMPARED = [
    pytest.param(name, split, marks=NEEDS_H5PY if name == "pcam" else ())
    for name, (_, splits) in THEIRS.items()
    for split in splits
]


def read_by_torchvision(name, root, part):
    """Open a part with the independent reader, whose folders differ in two sets."""
    if name == "svhn":
        root = root / "svhn"
    if name == "dtd" and not (root / "theirs").exists():
        (root / "theirs" / "dtd").mkdir(parents=True)
        os.symlink(root / "dtd", root / "theirs" / "dtd" / "dtd")
    if name == "dtd":
        root = root / "theirs"
    return getattr(torchvision.datasets, THEIRS[name][0])(root, split=part)


@pytest.mark.parametrize(("name", "split"), COMPARED)
def test_images_are_those_that_torchvision_reads(whole, monkeypatch, name, split):
    """Pixels, labels and order of all splits agree with the independent reader's.

    FGVC-Aircraft's joint list, which it reads, has training and validation images in another order.
    """
    for known in ("Flowers102", "SVHN"):  # the files' checksums
        known_set = getattr(torchvision.datasets, known)
        monkeypatch.setattr(known_set, "_check_integrity", lambda _: True)
    config = whole(name)
    images = open_images(config, split)
    expected = [
        pair
        for part in THEIRS[name][1][split]
        for pair in read_by_torchvision(name, config.root, part)
    ]
    if (name, split) == ("fgvc_aircraft", "train"):
        expected = expected[::2] + expected[1::2]
    assert len(images) == len(expected)
    assert images.labels == [label for _, label in expected]
    for index in range(0, len(images), 5):
        theirs = expected[index][0].convert("RGB")
        assert np.array_equal(np.asarray(images[index]), np.asarray(theirs))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("food101", "Food101"),
        ("stanford_cars", "StanfordCars"),
        ("fgvc_aircraft", "FGVCAircraft"),
        ("oxford_pets", "OxfordIIITPet"),
        ("sun397", "SUN397"),
    ],
)
def test_class_names_are_torchvision_s(whole, name, known):
    """In its order, where it reads the same folder."""
    config = whole(name)
    theirs = getattr(torchvision.datasets, known)(config.root)
    for split in data_set(name).counts:
        assert open_images(config, split).class_names == theirs.classes


@pytest.mark.parametrize(
    ("name", "split", "key", "class_name"),
    [
        ("food101", "test", "images/waffles/13.jpg", "waffles"),
        (
            "cub200",
            "test",
            "images/001.Black_footed_Albatross/Black_footed_Albatross_0002.jpg",
            "001.Black_footed_Albatross",
        ),
        ("cub200", "train", "images/200.Bird_200/Bird_200_0003.jpg", "200.Bird_200"),
        ("sun397", "train", "c/church/outdoor/sun_a.jpg", "church/outdoor"),
        ("sun397", "test", "a/abbey/sun_b.jpg", "abbey"),
        ("stanford_cars", "train", "cars_train/00196.jpg", "AM General Hummer SUV 2000"),
        ("fgvc_aircraft", "val", "data/images/2000001.jpg", "Boeing 717"),
        ("fgvc_aircraft", "test", "data/images/3000002.jpg", "F/A-18"),
        ("dtd", "val", "images/zigzagged/zigzagged_0001.jpg", "zigzagged"),
        ("oxford_pets", "train", "images/american_bulldog_107.jpg", "American Bulldog"),
        ("flowers102", "train", "jpg/image_00102.jpg", "pink primrose"),
        ("flowers102", "val", "jpg/image_00103.jpg", "blackberry lily"),
        ("eurosat", "train", "2750/SeaLake/SeaLake_2.jpg", "SeaLake"),
        (
            "resisc45",
            "test",
            "NWPU-RESISC45/baseball_diamond/baseball_diamond_003.jpg",
            "baseball_diamond",
        ),
        ("gtsrb", "train", "GTSRB/Training/00042/00000_00001.ppm", "00042"),
        ("gtsrb", "test", "GTSRB/Final_Test/Images/00000.ppm", "00042"),
        ("svhn", "train", "train 9", "0"),
        pytest.param("pcam", "train", "valid 1", "tumour", marks=NEEDS_H5PY),
    ],
)
def test_hand_chosen_images_have_their_classes(whole, name, split, key, class_name):
    """As the published lists state them."""
    assert classes_by_file(open_images(whole(name), split))[key] == class_name


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_image_but_validation_s(whole, name):
    """Validation is a part of training; test images are of neither; pretraining reads training."""
    config = whole(name)
    train = open_images(config, "train")
    assert open_images(config, "pretrain").keys() == train.keys()
    assert len(set(train.keys())) == len(train)
    assert not set(train.keys()) & set(open_images(config, "test").keys())
    if name in WITH_VAL:
        val = open_images(config, "val")
        assert val.class_names == train.class_names
        assert 0 < len(val) < len(train)
        assert classes_by_file(val).items() <= classes_by_file(train).items()


@pytest.mark.parametrize("name", NAMES)
def test_data_check_counts_each_tree(whole, name):
    """Every image is decoded; the numbers of images are all that is missing."""
    config = whole(name)
    for split, published in (("pretrain", "train"), ("test", "test")):
        findings = check_split(config, split)
        counts = data_set(name).counts[published]
        assert findings.num_images == counts.images
        assert len(findings.class_sizes) == counts.classes
        assert not findings.broken
        assert all("images each" in text for text in findings.problems)


def test_data_check_is_a_command(whole, tmp_path, tiny_tree, capsys):
    """It reports the published numbers of a split beside what is found."""
    tiny_tree["data"] = {"name": "dtd", "root": str(whole("dtd").root), "image_size": 32}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_tree))
    assert main(["data-check", str(tmp_path / "run.yaml")]) == 1
    out = capsys.readouterr().out
    assert "train: 94 images in 47 classes" in out
    assert "published: 94 images, 47 classes, 80 images per class" in out


@pytest.mark.parametrize("name", transfer_trees.WRITERS)
def test_published_numbers_are_consistent(name):
    """The numbers of a class times the classes are those of all; a config names the set."""
    entry = data_set(name)
    assert ("val" in entry.counts) == (name in WITH_VAL)
    for counts in entry.counts.values():
        assert counts.images_per_class in (None, counts.images / counts.classes)
    assert entry.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    blocks = [
        parse_tree(DataConfig, yaml.safe_load(path.read_text())["data"], config)
        for config, path in shipped_configs().items()
        if config.startswith("data/") and f"\n  name: {name}\n" in path.read_text()
    ]
    (block,) = blocks
    assert (block.image_size, block.eval_resize, block.eval_interpolation) == (224, 224, "bicubic")
    assert normalisation(block) == entry.normalisation


def test_the_metric_is_the_literature_s():
    """Mean per-class accuracy for four sets of Kornblith et al. 2019, top-1 for all others."""
    found = {entry.name for entry in DATA_SETS if entry.metric == "mean_per_class"}
    assert found == {
        *("fgvc_aircraft", "oxford_pets", "flowers102"),
        *("caltech101", "caltech101_background"),
    }


# The validation split


@pytest.mark.parametrize("name", ["food101", "svhn", "digits"])
def test_a_set_without_validation_says_so(whole, name):
    """One error, which names those that have one."""
    config = DataConfig(name=name, image_size=8) if name == "digits" else whole(name)
    message = rf"{name} has no published validation split \(those of dtd, eurosat, .*\); hold out"
    with pytest.raises(UserError, match=message):
        open_images(config, "val")


def test_validation_images_are_never_a_subset(whole):
    """The number of training images chooses among those; validation stays whole."""
    config = whole("dtd", num_train_images=47, num_test_images=47)
    assert len(open_images(config, "train")) == 47
    assert len(open_images(config, "val")) == 47
    config = config.model_copy(update={"num_train_images": 3, "num_test_images": 5})
    assert len(open_images(config, "val")) == 47
    assert len(open_images(config, "test")) == 5


# Caltech-101's draw


def test_the_draw_of_caltech101_never_changes(whole):
    """Thirty a class by the smallest hashes, as sha256sum gives them; three are for testing."""
    config = whole("caltech101")
    test = classes_by_file(open_images(config, "test"))
    drawn = [key[-8:-4] for key, name in test.items() if name == "accordion"]
    assert drawn == ["0005", "0009", "0019"]
    train = open_images(config, "train")
    assert [train.labels.count(label) for label in range(101)] == [30] * 101


def test_the_background_is_a_class_of_one_set_alone(whole):
    """It is the first of 102 classes; the draw of all others stays."""
    without = whole("caltech101")
    background = without.model_copy(update={"name": "caltech101_background"})
    for split in ("train", "test"):
        with_background = classes_by_file(open_images(background, split))
        others = classes_by_file(open_images(without, split))
        left = {key for key, name in with_background.items() if name != "BACKGROUND_Google"}
        assert left == set(others)
        assert all(with_background[key] == name for key, name in others.items())
    assert open_images(background, "train").class_names[:2] == ["BACKGROUND_Google", "Faces"]
    keys = [*with_background, *classes_by_file(open_images(background, "train"))]
    assert all(key.endswith(".jpg") for key in keys)


def test_too_few_images_for_the_draw_are_refused(whole, alter):
    """A class of thirty would have no test image."""
    config = whole("caltech101")
    for number in (1, 2, 3):
        name = f"caltech101/101_ObjectCategories/Faces/image_{number:04}.jpg"
        alter(config.root / name, None)
    message = r"Faces' has 30 images, expected more than the 30 for training; move '.*caltech101' "
    with pytest.raises(UserError, match=message):
        open_images(config, "test")


@pytest.mark.parametrize(
    ("name", "path", "splits", "message"),
    [
        (
            "caltech101",
            "caltech101/101_ObjectCategories/Faces/image_0001.jpg",
            ("train", "test"),
            "302 test images, published are 303",
        ),
        (
            "gtsrb",
            "gtsrb/GTSRB/Training/00042/00000_00001.ppm",
            ("train", "test"),
            "85 train images, published are 86",
        ),
    ],
)
def test_no_image_can_be_missing(whole, alter, name, path, splits, message):
    """Of a folder that is listed, either: Caltech-101's draw would take one from the test."""
    config = whole(name)
    alter(config.root / path, None)
    for split in splits:
        with pytest.raises(UserError, match=f"{message}.*; {remedy(name)}"):
            open_images(config, split)


@NEEDS_H5PY
@pytest.mark.parametrize(("name", "found"), [("svhn", "10 test"), ("pcam", "4 test")])
def test_arrays_of_fewer_images_are_refused(tmp_path, name, found):
    """A cut file would be another set under the published name."""
    transfer_trees.WRITERS[name](tmp_path)
    with pytest.raises(UserError, match=rf"has {found} images, published are .*; {remedy(name)}"):
        open_images(configure(name, tmp_path), "test")


# Damage

LISTS = {
    "food101": "food-101/meta/train.json",
    "cub200": "CUB_200_2011/train_test_split.txt",
    "sun397": "SUN397/Training_01.txt",
    "stanford_cars": "stanford_cars/devkit/cars_train_annos.mat",
    "fgvc_aircraft": "fgvc-aircraft-2013b/data/images_variant_val.txt",
    "dtd": "dtd/labels/val1.txt",
    "oxford_pets": "oxford-iiit-pet/annotations/trainval.txt",
    "flowers102": "flowers-102/setid.mat",
    "eurosat": "eurosat_rgb/eurosat-train.txt",
    "resisc45": "resisc45/resisc45-val.txt",
    "svhn": "svhn/train_32x32.mat",
    "pcam": "pcam/camelyonpatch_level_2_split_train_x.h5",
}
REMEDIES = {
    "stanford_cars": "car_devkit.tgz .*/stanford_cars/cars_train/",
}
LISTED = [pytest.param(name, marks=NEEDS_H5PY if name == "pcam" else ()) for name in LISTS]


def remedy(name):
    """The end of an error about a damaged tree, as an expression."""
    again = rf"move '.*' away and run `rsa-pretrain download {name} /.*`$"
    return REMEDIES.get(name, again)


def test_torchvision_s_scenes_lack_the_lists_alone(whole, alter):
    """The 39 GB of images need not be downloaded again."""
    config = whole("sun397")
    alter(config.root / LISTS["sun397"], None)
    with pytest.raises(UserError, match=r"unpack https://.*/Partitions\.zip into it"):
        open_images(config, "train")


# An absent, an empty, and garbled files; MATLAB's header has 128 bytes.
@pytest.mark.parametrize("content", [None, b"", b"\xff{no list\n", b"{damaged" * 8, bytes(200)])
@pytest.mark.parametrize("name", LISTED)
def test_a_damaged_list_says_what_to_do(whole, alter, name, content):
    """A file that is missing or no list is named with the remedy."""
    config = whole(name)
    path = config.root / LISTS[name]
    alter(path, content)
    what = "^no " if content is None else ""
    with pytest.raises(UserError, match=rf"{what}'{re.escape(str(path))}'.*; .*{remedy(name)}"):
        open_images(config, "train")


@pytest.mark.parametrize("name", LISTED)
def test_a_cut_list_says_what_to_do(whole, alter, name):
    """Half a list is never a smaller set."""
    config = whole(name)
    content = (config.root / LISTS[name]).read_bytes()
    alter(config.root / LISTS[name], content[: len(content) // 2])
    with pytest.raises(UserError, match=remedy(name)):
        open_images(config, "train")


@pytest.mark.parametrize("name", [name for name in LISTS if name not in ("svhn", "pcam")])
def test_a_missing_image_is_named(whole, alter, name):
    """Before anything is decoded, with the number of those that are missing."""
    config = whole(name)
    images = open_images(config, "train")
    alter(config.root / data_set(name).folders[0] / images.keys()[3], None)
    message = rf"^1 of {len(images)} listed images are not in '.*': {re.escape(images.keys()[3])}; "
    with pytest.raises(UserError, match=message + f".*{remedy(name)}"):
        open_images(config, "train")


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_root_says_what_to_do(tmp_path, name):
    """A folder too deep, one or two too high (torchvision's dtd/dtd), and one without the set."""
    (folder,) = data_set(name).folders
    (tmp_path / folder).mkdir()
    message = rf"data\.root should be the folder that contains it: '{tmp_path}'"
    with pytest.raises(UserError, match=message):
        open_images(configure(name, tmp_path / folder), "test")
    (tmp_path / "above").mkdir()
    (tmp_path / folder).rename(tmp_path / "above" / folder)
    with pytest.raises(UserError, match=rf"the folder that contains it: '{tmp_path}/above'"):
        open_images(configure(name, tmp_path), "test")
    (tmp_path / "twice" / folder / folder).mkdir(parents=True)
    message = rf"no .*; data\.root should be .* inner '{folder}': '{tmp_path}/twice/{folder}'$"
    with pytest.raises(UserError, match=message):
        open_images(configure(name, tmp_path / "twice"), "test")
    (tmp_path / "none").mkdir()
    expected = REMEDIES.get(name, rf"; run `rsa-pretrain download {name} /.*/none`")
    with pytest.raises(UserError, match=rf"none/{folder}' is not a folder; .*{expected[2:]}"):
        open_images(configure(name, tmp_path / "none"), "test")


@pytest.mark.parametrize(
    ("name", "path", "old", "new", "message"),
    [
        ("dtd", "dtd/labels/train1.txt", "banded/", "bandid/", "unknown class 'bandid'"),
        ("dtd", "dtd/labels/test1.txt", "banded/banded_0002.jpg\n", "", "no image of 1 classes"),
        (
            "dtd",
            "dtd/labels/val1.txt",
            "_0001.jpg",
            "_0000.jpg",
            "name 47 images twice: images/banded/",
        ),
        ("dtd", "dtd/labels/test1.txt", "_0002.jpg", "_0001.jpg", "name 47 images twice: images/"),
        (
            "food101",
            "food-101/meta/train.json",
            ', "waffles/12"',
            "",
            "has 201 train images, published are 202",
        ),
        ("cub200", "CUB_200_2011/train_test_split.txt", "600 1", "600 0", "has 399 train images"),
        ("sun397", "SUN397/ClassName.txt", "/a/abbey\n", "", "unknown class 'abbey'"),
        ("sun397", "SUN397/ClassName.txt", "/a/abbey\n", "/c/church/indoor\n", "class 'abbey'"),
        (
            "sun397",
            "SUN397/ClassName.txt",
            "/a/a",
            "/z/more\n/a/a",
            "has 398 classes, expected 397",
        ),
        ("cub200", "CUB_200_2011/images.txt", "600 ", "700 ", "differ in the images that they"),
        ("cub200", "CUB_200_2011/images.txt", "600 ", "600", "line without a number and a value"),
        ("cub200", "CUB_200_2011/train_test_split.txt", "9 1", "9 2", "mark other than 0 and 1"),
        ("cub200", "CUB_200_2011/classes.txt", "200 ", "300 ", r"labels.txt' .* class '200'"),
        ("cub200", "CUB_200_2011/images.txt", "600 ", "599 ", "two lines of the same number"),
        ("cub200", "CUB_200_2011/images.txt", " 001.", " 0\0.", r"listed images are not in"),
        pytest.param(
            "gtsrb",
            "gtsrb/GT-final_test.csv",
            ";42\n",
            ";" + "9" * 5000,
            "Filename and ClassId",
            id="gtsrb-a long number",
        ),
        pytest.param(
            "gtsrb",
            "gtsrb/GT-final_test.csv",
            ";42\n",
            ";" + "9" * 200_000,
            "Filename and ClassId",
            id="gtsrb-a long field",
        ),
        ("gtsrb", "gtsrb/GT-final_test.csv", ";42\n", "\n", "Filename and ClassId"),
        ("food101", "food-101/meta/train.json", "[", '"', "is not JSON that can be read"),
        pytest.param(
            "food101",
            "food-101/meta/train.json",
            "{",
            "[" * 100_000,
            "is not JSON that can be read",
            id="food101-deeply nested",
        ),
        ("oxford_pets", "oxford-iiit-pet/annotations/trainval.txt", " 37 ", " x ", "three numbers"),
        ("oxford_pets", "oxford-iiit-pet/annotations/trainval.txt", " 37 ", " 1 ", "class 1 both"),
        (
            "oxford_pets",
            "oxford-iiit-pet/annotations/test.txt",
            "Abyss",
            "M",
            "differ in their class",
        ),
        ("oxford_pets", "oxford-iiit-pet/annotations/trainval.txt", " 37 ", " 99 ", "from 1 to 37"),
        ("gtsrb", "gtsrb/GT-final_test.csv", "ClassId", "Class", "columns Filename and ClassId"),
        ("gtsrb", "gtsrb/GT-final_test.csv", ";42\n", ";x\n", "and ClassId, a number"),
        (
            "gtsrb",
            "gtsrb/GT-final_test.csv",
            ";42\n",
            ";43\n",
            "number a class 43, expected 0 … 42",
        ),
    ],
)
def test_lists_that_differ_are_refused(whole, alter, name, path, old, new, message):
    """Whatever would number or choose images differently is one error with the remedy."""
    config = whole(name)
    text = (config.root / path).read_text()
    assert old in text
    alter(config.root / path, text.replace(old, new).encode())
    with pytest.raises(UserError, match=f"{message}.*; .*{remedy(name)}"):
        open_images(config, "test" if "test" in path and "train" not in path else "train")


def test_other_folders_of_signs_are_refused(tmp_path):
    """One too few would leave a class without images."""
    transfer_trees.gtsrb(tmp_path)
    config = configure("gtsrb", tmp_path)
    folder = config.root / "gtsrb/GTSRB/Training"
    (folder / "00042").rename(folder / "00043")
    with pytest.raises(UserError, match=r"should have the folders 00000 to 00042 alone; move '"):
        open_images(config, "train")


def test_digits_and_pixels_that_disagree_are_refused(tmp_path):
    """Their numbers and values."""
    transfer_trees.svhn(tmp_path)
    config = configure("svhn", tmp_path)
    path = config.root / "svhn" / "train_32x32.mat"
    pixels = np.zeros((32, 32, 3, 5), np.uint8)
    transfer_trees.savemat(path, {"X": pixels, "y": np.ones((6, 1), np.uint8)})
    with pytest.raises(UserError, match=r"has 6 digits and pixels of type uint8 and shape .*5\)"):
        open_images(config, "train")
    transfer_trees.savemat(path, {"X": pixels, "y": np.full((5, 1), 11, np.uint8)})
    with pytest.raises(UserError, match=r"whole numbers from 1 to 10 alone; move '.*svhn' away"):
        open_images(config, "train")
    transfer_trees.savemat(path, {"X": pixels})
    with pytest.raises(UserError, match=r"has no array 'y'; move '.*svhn' away"):
        open_images(config, "train")


ANNOTATIONS = "stanford_cars/devkit/cars_train_annos.mat"
ROWS = np.array([(text, "1.jpg") for text in "ab"], [("class", object), ("fname", object)])


@pytest.mark.parametrize(
    ("name", "path", "arrays", "message"),
    [
        ("flowers102", "flowers-102/imagelabels.mat", {"labels": "text"}, "from 1 to 102 alone"),
        ("flowers102", "flowers-102/imagelabels.mat", {"labels": [1.7] * 408}, "whole numbers"),
        ("flowers102", "flowers-102/setid.mat", {"trnid": [np.nan]}, "from 1 to 408 alone"),
        ("flowers102", "flowers-102/setid.mat", {"trnid": [0]}, "from 1 to 408 alone"),
        ("stanford_cars", ANNOTATIONS, {"annotations": "text"}, "without 'fname' or 'class'"),
        ("stanford_cars", ANNOTATIONS, {"annotations": ROWS}, "whole numbers from 1 to 196"),
        ("stanford_cars", "stanford_cars/devkit/cars_meta.mat", {"class_names": 5}, "1 classes"),
        ("svhn", "svhn/train_32x32.mat", {"X": "text", "y": "text"}, "pixels of type <U4"),
        (
            "svhn",
            "svhn/train_32x32.mat",
            {"X": np.zeros((32, 32, 3, 1), np.uint8), "y": [[1]]},
            r"1 digits and pixels of type uint8 and shape \(32, 32, 3\)",
        ),
        (
            "svhn",
            "svhn/train_32x32.mat",
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1], [2.7]]},
            "whole numbers from 1 to 10 alone",
        ),
    ],
)
def test_other_arrays_are_refused(whole, alter, name, path, arrays, message):
    """Text, fractions and single numbers would be other labels, or end in a traceback."""
    config = whole(name)
    buffer = io.BytesIO()
    transfer_trees.savemat(buffer, arrays)
    alter(config.root / path, buffer.getvalue())
    with pytest.raises(UserError, match=f"{message}.*; .*{remedy(name)}"):
        open_images(config, "train")


# PatchCamelyon


@NEEDS_H5PY
def test_patches_are_read_one_by_one_in_any_process(whole):
    """Nothing of the pixels is kept, and a copy for a loader process opens the files itself."""
    images = open_images(whole("pcam"), "train")
    assert not isinstance(images.sources, PixelSources)
    before = np.asarray(images[7])
    copy = pickle.loads(pickle.dumps(images))
    assert len(pickle.dumps(images)) < 2_000
    assert np.array_equal(np.asarray(copy[7]), before)


@NEEDS_H5PY
def test_labels_and_patches_that_disagree_are_refused(tmp_path):
    """One label too few, and what is no label."""
    import h5py

    transfer_trees.pcam(tmp_path)
    config = configure("pcam", tmp_path)
    path = config.root / "pcam" / "camelyonpatch_level_2_split_test_y.h5"
    with h5py.File(path, "w") as file:
        file["y"] = np.zeros((3, 1, 1, 1), np.uint8)
    with pytest.raises(UserError, match=r"shape \(4, 96, 96, 3\), expected \(3, .* 3 labels; move"):
        open_images(config, "test")
    for labels in ([2, 0, 0, 0], [0.7, 0, 0, 1], ["0", "0", "1", "1"]):
        with h5py.File(path, "w") as file:
            file["y"] = labels
        with pytest.raises(UserError, match=r"whole numbers from 0 to 1 alone; move '.*pcam' away"):
            open_images(config, "test")
    with h5py.File(path, "w") as file:
        file.create_group("y")
    with pytest.raises(UserError, match=r"has no array 'y'; move '.*pcam' away"):
        open_images(config, "test")


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    """One line."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "pcam").mkdir()
    with pytest.raises(UserError, match=r"needs the package h5py .*'rsa-toolkit\[hdf5\]'$"):
        open_images(configure("pcam", tmp_path), "test")


# Real images


@pytest.mark.real_data
def test_real_eurosat_images_are_read(rsa_data, tmp_path, monkeypatch):
    """The published classes and file names; the pixels are those of the same files elsewhere."""
    for split, number in (("train", 200), ("val", 100), ("test", 100)):
        monkeypatch.setitem(data_set("eurosat").counts, split, Counts(number, 10))
    folder = tmp_path / "eurosat_rgb"
    paths = sorted((rsa_data / "eurosat_mini" / "train").glob("*/*.jpg"))
    for start, part in enumerate(("train", "val", "test")):
        chosen = paths[start::30]
        transfer_trees.write_lines(folder / f"eurosat-{part}.txt", [path.name for path in chosen])
        for path in chosen:
            place = folder / "2750" / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            os.symlink(path, place / path.name)
    images = open_images(configure("eurosat", tmp_path), "train")
    beside = DataConfig(name="imagefolder", root=rsa_data / "eurosat_mini", image_size=64)
    theirs = open_images(beside.model_copy(update={"on_broken": "unchecked"}), "train")
    assert images.class_names == theirs.class_names
    assert len(images) == 200
    assert len(theirs) == 3000
    expected = {Path(key).name: name for key, name in classes_by_file(theirs).items()}
    found = {Path(key).name: name for key, name in classes_by_file(images).items()}
    assert found.items() <= expected.items()
    place = {Path(key).name: index for index, key in enumerate(theirs.keys())}
    for index, name in enumerate(found):
        assert np.array_equal(np.asarray(images[index]), np.asarray(theirs[place[name]]))
