"""Lists, images and masks of both layouts, and every fault that is refused."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masked_shapes import NUM_TEST, NUM_TRAIN, write_list, write_pair, write_shapes
from PIL import Image

from rsa_eval.evaluators.segmentation.samples import read_pair
from rsa_eval.evaluators.segmentation.sets import MaskedSet, open_masked, open_masked_splits
from rsa_eval.evaluators.segmentation.settings import VOC_PIXEL_CLASSES, MasksConfig
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

VOC = {"name": "shapes", "layout": "voc", "classes": 4}
ADE = {"name": "shapes", "layout": "ade20k", "classes": 4}


def data_of(root: Path, **changes: Any) -> DataConfig:
    """Settings of images below a root."""
    tree = {"name": "imagefolder", "root": root, "image_size": 64} | changes
    return parse_tree(DataConfig, tree, "data")


def masks_of(**tree: Any) -> MasksConfig:
    """Settings of masks."""
    return parse_tree(MasksConfig, tree, "masks")


@pytest.fixture
def copy(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the shapes, to be damaged."""
    return Path(shutil.copytree(shapes, tmp_path / "copy"))


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """The same in ADE20K's layout."""
    return write_shapes(tmp_path / "ade", "ade20k")


def first(root: Path, **masks: Any) -> MaskedSet:
    """The training images."""
    return open_masked(data_of(root), masks_of(**(VOC | masks)), "train")


def test_a_palette_is_read_as_indices(tmp_path: Path) -> None:
    """The colours mean nothing: 0 is the background and 255 ignored, whatever they look like."""
    mask = np.array([[0, 1, 3], [255, 2, 1]], np.uint8)
    pixels = np.zeros((2, 3, 3), np.uint8)
    write_pair(tmp_path, "voc", "train", "a", pixels, mask)
    write_list(tmp_path, "train", ["a"])
    with Image.open(tmp_path / "SegmentationClass/a.png") as stored:
        assert stored.mode == "P"
        assert stored.convert("RGB").getpixel((0, 0)) != (0, 0, 0)
    assert first(tmp_path).mask(0).tolist() == mask.tolist()


def test_grey_levels_are_indices_too(copy: Path) -> None:
    """SBD's masks are stored so; a mask in the folder of another annotation is read from there."""
    before = first(copy).mask(0)
    (copy / "SegmentationClassAug").mkdir()
    Image.fromarray(before).save(copy / "SegmentationClassAug/shape_00.png")
    write_list(copy, "trainaug", ["shape_00"])
    found = first(copy, train_split="trainaug", train_mask_dir="SegmentationClassAug")
    assert (len(found), found.mask(0).tolist()) == (1, before.tolist())
    assert "SegmentationClassAug" in found.masks.where(0)


def test_unlabelled_pixels_of_ade20k_are_ignored(ade: Path, shapes: Path) -> None:
    """0 becomes 255 and 1 … C become 0 … C - 1, so both layouts give the same masks."""
    with Image.open(ade / "annotations/training/shape_00.png") as stored:
        assert set(np.unique(np.array(stored))) >= {0, 1}
    train, test = open_masked_splits(data_of(ade), masks_of(**ADE))
    others = open_masked_splits(data_of(shapes), masks_of(**VOC))
    assert (len(train), len(test)) == (NUM_TRAIN, NUM_TEST)
    for own, other in zip((train, test), others, strict=True):
        for index in range(len(own)):
            assert own.mask(index).tolist() == other.mask(index).tolist()
    assert train.class_names == ["class 1", "class 2", "class 3", "class 4"]
    assert train.images.keys()[0] == "images/training/shape_00.jpg"


def test_classes_have_names() -> None:
    """Names, a number of them, VOC's 21 or ADE20K's 150."""
    assert masks_of(name="a", layout="voc").class_names == list(VOC_PIXEL_CLASSES)
    assert len(VOC_PIXEL_CLASSES) == 21
    assert len(masks_of(name="a", layout="ade20k").class_names) == 150
    assert masks_of(name="a", layout="voc", classes=["x", "y"]).class_names == ["x", "y"]
    assert masks_of(name="a", layout="voc", classes=2).class_names == ["class 0", "class 1"]


def test_fewer_images_are_drawn_with_their_masks(shapes: Path) -> None:
    """The pairs stay pairs."""
    found = open_masked(data_of(shapes, num_train_images=5), masks_of(**VOC), "train")
    names = [Path(key).stem for key in found.images.keys()]  # noqa: SIM118 (a method)
    assert names == [Path(key).stem for key in found.masks.keys()]  # noqa: SIM118
    assert len(set(names)) == 5
    with pytest.raises(UserError, match="asked for 99 images of shapes, which has 24"):
        open_masked(data_of(shapes, num_train_images=99), masks_of(**VOC), "train")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no list": (
        lambda root: (root / "ImageSets/Segmentation/train.txt").unlink(),
        "there is no '.*train.txt'; check data.root and masks.train_split, .* masks.layout=voc",
    ),
    "empty list": (lambda root: write_list(root, "train", []), "lists no images"),
    "two columns": (lambda root: write_list(root, "train", ["a 1"]), "has the line 'a 1'"),
    "a path": (lambda root: write_list(root, "train", ["../a"]), r"has the line '\.\./a'"),
    "twice": (
        lambda root: write_list(root, "train", ["shape_00", "shape_00"]),
        "lists 1 images twice: shape_00",
    ),
    "no image": (
        lambda root: (root / "JPEGImages/shape_03.jpg").unlink(),
        "1 of 24 files that .* are not in '.*JPEGImages': JPEGImages/shape_03.jpg",
    ),
    "no mask": (
        lambda root: (root / "SegmentationClass/shape_03.png").unlink(),
        "1 of 24 files that .* are not in '.*SegmentationClass': SegmentationClass/shape_03.png",
    ),
    "trained and tested": (
        lambda root: write_list(root, "train", ["shape_00", "shape_30"]),
        "1 images of shapes are in the splits 'train' and 'val': JPEGImages/shape_30.jpg",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_faulty_lists_are_refused(copy: Path, fault: str) -> None:
    """Nothing is skipped: the error names the file and what was expected."""
    damage, message = BROKEN[fault]
    damage(copy)
    with pytest.raises(UserError, match=message):
        open_masked_splits(data_of(copy), masks_of(**VOC))


def test_a_byte_order_mark_is_no_part_of_an_id(copy: Path) -> None:
    """Windows editors write one."""
    path = copy / "ImageSets/Segmentation/train.txt"
    before = first(copy).images.keys()
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert first(copy).images.keys() == before


def test_warped_images_leave_background_free_only_where_there_is_one() -> None:
    """Elsewhere class 0 is one like the others, and what is outside does not count."""
    voc = {"name": "a", "layout": "voc"}
    assert masks_of(**voc).class_outside == 0
    assert masks_of(**voc, classes=["Background", "x"]).class_outside == 0
    assert masks_of(**voc, classes=["x", "background"]).class_outside == 255
    assert masks_of(**voc, classes=3).class_outside == 255
    ade = {"name": "a", "layout": "ade20k"}
    assert masks_of(**ade).class_outside == 255
    assert masks_of(**ade, classes=["background", "x"]).class_outside == 255


def test_a_missing_list_of_voc_says_what_to_do(copy: Path) -> None:
    """Those who have VOC alone read which settings take its own training images."""
    with pytest.raises(UserError, match=r"data\.root should be the folder VOC2012 of VOCdevkit"):
        first(copy, name="voc2012", train_split="trainval")
    with pytest.raises(UserError, match=r"trainaug.*SBD.*set masks\.train_split=train"):
        first(
            copy,
            name="voc2012",
            train_split="trainaug",
            train_mask_dir="SegmentationClassAug",
        )


def test_faulty_folders_of_ade20k_are_refused(ade: Path) -> None:
    """Each image has one mask, each mask an image, and there are no other files."""

    def opened() -> None:
        open_masked(data_of(ade), masks_of(**ADE), "train")

    extra = ade / "annotations/training/extra.png"
    shutil.copy(ade / "annotations/training/shape_00.png", extra)
    with pytest.raises(UserError, match=r"1 masks have no image .*: extra\.png"):
        opened()
    extra.unlink()
    (ade / "annotations/training/shape_00.png").unlink()
    with pytest.raises(UserError, match=r"1 of 24 images have no mask .*: shape_00\.png"):
        opened()
    (ade / "images/training/notes.txt").write_text("")
    with pytest.raises(UserError, match=r"'notes\.txt' among the files of the split 'training'"):
        opened()
    with pytest.raises(UserError, match=r"no files in '.*images/x'"):
        open_masked(data_of(ade), masks_of(**ADE, train_split="x"), "train")


def write_grey_png(path: Path, bits: int) -> None:
    """Write 8 × 8 pixels of grey level 1 with few bits each, which Pillow itself does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    byte = sum(1 << (bits * place) for place in range(8 // bits))
    rows = (b"\0" + bytes([byte]) * bits) * 8
    header = struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_palette_indices_or_refused(copy: Path, bits: int) -> None:
    """Pillow scales grey levels of 4 bits by 17: classes would be others. It keeps indices."""
    path = copy / "SegmentationClass/shape_00.png"
    indices = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    indices.putpalette([255, 0, 0, 0, 255, 0])
    indices.save(path, bits=bits)
    assert first(copy).mask(0).tolist() == [[0, 1], [1, 0]]
    write_grey_png(path, bits)
    with pytest.raises(UserError, match=f"is stored as (1|L;{bits}); expected a PNG"):
        first(copy).mask(0)


def replace_mask(root: Path, image: Image.Image, **options: Any) -> None:
    """Replace the first training mask."""
    image.save(root / "SegmentationClass/shape_00.png", **options)


STORED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "colours": (
        lambda root: replace_mask(root, Image.new("RGB", (50, 50))),
        "^'[^']*shape_00.png' is stored as RGB; expected a PNG with the index of a class",
    ),
    "deep": (
        lambda root: replace_mask(root, Image.fromarray(np.zeros((9, 9), np.uint16))),
        "is stored as I;16",
    ),
    "bits": (lambda root: replace_mask(root, Image.new("1", (50, 50))), "is stored as 1"),
    "lossy": (
        lambda root: replace_mask(root, Image.new("L", (50, 50)), format="JPEG"),
        "is a JPEG, whose lossy compression changes classes",
    ),
    "a value outside": (
        lambda root: replace_mask(root, Image.new("L", (50, 50), 4)),
        "has the value 4 in 2,500 pixels; expected classes 0 to 3, and 255",
    ),
    "no image": (
        lambda root: (root / "SegmentationClass/shape_00.png").write_bytes(b"no image"),
        "cannot decode '.*shape_00.png'",
    ),
    "cut off": (
        lambda root: (root / "SegmentationClass/shape_00.png").write_bytes(
            (root / "SegmentationClass/shape_00.png").read_bytes()[:90]
        ),
        "cannot decode '.*shape_00.png'",
    ),
    "another size": (
        lambda root: replace_mask(root, Image.new("L", (30, 20))),
        "shape_00.png' has 30 × 20 pixels, its image '.*shape_00.jpg' ",
    ),
}


@pytest.mark.parametrize("fault", STORED)
def test_faulty_masks_are_refused(copy: Path, fault: str) -> None:
    """Colours, deep levels, lossy files, unknown values, damage and another size."""
    damage, message = STORED[fault]
    damage(copy)
    with pytest.raises(UserError, match=message):
        first(copy).check_mask(0)


def test_a_damaged_image_comes_with_a_remedy_that_is_allowed(copy: Path) -> None:
    """These sets refuse data.on_broken."""
    (copy / "JPEGImages/shape_00.jpg").write_bytes(b"no image")
    for read in (lambda: first(copy).check_mask(0), lambda: read_pair(first(copy), 0)):
        with pytest.raises(UserError, match=r"shape_00\.jpg' .*; replace it, or leave image and"):
            read()


def test_the_limit_of_pixels_holds_for_masks(copy: Path) -> None:
    """A small file that claims a huge size is not decoded."""
    found = open_masked(data_of(copy, max_megapixels=0.001), masks_of(**VOC), "train")
    with pytest.raises(UserError, match=r"megapixels, data\.max_megapixels is 0\.001"):
        found.mask(0)


def test_255_is_no_void_of_ade20k(ade: Path) -> None:
    """Its unlabelled pixels are 0; another value is a mistake of the settings."""
    path = ade / "annotations/training/shape_00.png"
    Image.new("L", (50, 50), 255).save(path)
    with pytest.raises(UserError, match="value 255 in 2,500 pixels; expected classes 1 to 4, and"):
        open_masked(data_of(ade), masks_of(**ADE), "train").mask(0)


def test_an_exif_turn_applies_to_the_image_alone(copy: Path) -> None:
    """Masks have no orientation: one that fits the stored pixels does not fit the turned ones."""
    path = copy / "JPEGImages/shape_00.jpg"
    with Image.open(path) as image:
        width, height = image.size
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    assert width != height
    with pytest.raises(UserError, match="each pixel of an image needs a class"):
        first(copy).check_mask(0)
    stored = data_of(copy, exif_orientation=False)
    open_masked(stored, masks_of(**VOC), "train").check_mask(0)


@pytest.mark.parametrize(
    ("orientation", "is_square"), [(2, False), (3, False), (4, False), (6, True), (8, True)]
)
def test_turns_that_keep_the_sides_are_refused(
    copy: Path, orientation: int, is_square: bool
) -> None:
    """No size tells to which of both a mask belongs; without EXIF it is the pixels as stored."""
    path = copy / "JPEGImages/shape_00.jpg"
    with Image.open(path) as image, Image.open(copy / "SegmentationClass/shape_00.png") as mask:
        size = (40, 40) if is_square else image.size
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.resize(size).save(path, exif=exif)
        replace_mask(copy, mask.resize(size))
    for read in (lambda: first(copy).check_mask(0), lambda: read_pair(first(copy), 0)):
        with pytest.raises(UserError, match=r"fits both ways; set data\.exif_orientation=false"):
            read()
    stored = open_masked(data_of(copy, exif_orientation=False), masks_of(**VOC), "train")
    stored.check_mask(0)


def test_a_mask_of_the_turned_size_is_taken(copy: Path) -> None:
    """Sides are exchanged, so the size says that it was drawn on the image made upright."""
    path = copy / "JPEGImages/shape_00.jpg"
    with Image.open(path) as image, Image.open(copy / "SegmentationClass/shape_00.png") as mask:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
        replace_mask(copy, mask.transpose(Image.Transpose.ROTATE_270))
    pixels, found = read_pair(first(copy), 0)
    assert pixels.shape[1:] == found.shape


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "a/b"}, "name"),
        ({"classes": 1}, "masks"),
        ({"classes": 256}, "masks"),
        ({"classes": ["a"]}, "classes has 1 names, expected 2 to 255"),
        ({"classes": ["a", "a"]}, "names one twice"),
        ({"layout": "ade20k", "train_mask_dir": "x"}, "train_mask_dir belongs to layout voc"),
        ({"train_split": "../x"}, r"expected the name of a split or folder, found '\.\./x'"),
        ({"layout": "cityscapes"}, "layout"),
    ],
)
def test_impossible_sets_are_refused(tree: dict[str, Any], message: str) -> None:
    """Mistakes are found when the settings are read."""
    with pytest.raises(UserError, match=message):
        masks_of(**(VOC | tree))
