"""Masks drawn from COCO annotations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_codec
from pycocotools.coco import COCO

from benchmarks.semantic_masks import draw_classes, main, voc_palette
from rsa_eval.evaluators.segmentation.sets import open_masked_splits
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_pretrain.plumbing.config.files import load_config

SIZE = (20, 30)


def rectangle(number: int, category: int, left: int, top: int, side: int) -> dict[str, Any]:
    """An annotation of a square."""
    right, bottom = left + side, top + side
    corners = [left, top, right, top, right, bottom, left, bottom]
    return {
        "id": number,
        "image_id": 1,
        "category_id": category,
        "segmentation": [corners],
        "bbox": [left, top, side, side],
        "area": side * side,
        "iscrowd": 0,
    }


def crowd(number: int) -> dict[str, Any]:
    """An annotation of the left half as a crowd."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[:, :15] = 1
    code = mask_codec.encode(mask)
    segmentation = {"size": list(SIZE), "counts": code["counts"].decode()}
    return rectangle(number, 7, 0, 0, 15) | {"segmentation": segmentation, "iscrowd": 1}


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., list[str]]:
    """A function that writes one image with annotations, and returns the command's words."""

    def write(*entries: dict[str, Any], names: tuple[str, ...] = ("cat", "dog")) -> list[str]:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(folder / "a.jpg")
        tree = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
            "categories": [{"id": 3 + 4 * place, "name": name} for place, name in enumerate(names)],
            "annotations": list(entries),
        }
        (tmp_path / "set.json").write_text(json.dumps(tree))
        return [str(tmp_path / "set.json"), str(folder), str(tmp_path / "out")]

    return write


def test_smaller_objects_are_above_larger_ones_and_crowds_below() -> None:
    """A small dog in front of a cat in front of a crowd, pixel by pixel."""
    entries = [rectangle(1, 7, 12, 4, 4), rectangle(2, 3, 10, 2, 12), crowd(3)]
    expected = np.zeros(SIZE, int)
    expected[:, :15] = 255
    expected[2:14, 10:22] = 1
    expected[4:8, 12:16] = 2
    assert draw_classes(entries, SIZE, {3: 1, 7: 2}).tolist() == expected.tolist()


def test_the_palette_is_vocs() -> None:
    """Its first colours and that of void, as in the published files."""
    palette = np.array(voc_palette()).reshape(256, 3)
    assert palette[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[15].tolist() == [192, 128, 128]
    assert palette[255].tolist() == [224, 224, 192]


def test_files_are_vocs(write_set: Callable[..., list[str]], tmp_path: Path) -> None:
    """Palette PNGs of indices, a list, a link to the image, and a config that the probe reads."""
    words = write_set(rectangle(1, 7, 2, 3, 9))
    assert main(words) == 0
    assert main([*words, "--split", "val"]) == 0
    out = tmp_path / "out"
    with Image.open(out / "SegmentationClass/a.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette() == voc_palette()
        assert np.bincount(np.array(mask).ravel()).tolist() == [600 - 81, 0, 81]
    assert (out / "ImageSets/Segmentation/train.txt").read_text() == "a\n"
    assert (out / "JPEGImages/a.jpg").resolve() == tmp_path / "images/a.jpg"
    config = load_config(SegmentationConfig, out / "config.yaml")
    assert config.masks.class_names == ["background", "cat", "dog"]


def test_some_categories_are_kept(write_set: Callable[..., list[str]], tmp_path: Path) -> None:
    """Objects of the others are background."""
    words = write_set(rectangle(1, 3, 2, 3, 9), rectangle(2, 7, 20, 3, 4))
    assert main([*words, "--only", "dog"]) == 0
    with Image.open(tmp_path / "out/SegmentationClass/a.png") as mask:
        assert np.bincount(np.array(mask).ravel()).tolist() == [600 - 16, 16]


def test_mistakes_are_told(
    write_set: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line and exit code 2; nothing is drawn wrongly."""

    def error(*words: str) -> str:
        assert main(words) == 2
        return capsys.readouterr().err

    words = write_set(rectangle(1, 3, 2, 3, 9) | {"segmentation": []})
    assert "1 of 1 annotations of " in error(*words)
    words = write_set(rectangle(1, 3, 2, 3, 9))
    assert "has no category 'horse'" in error(*words, "--only", "horse")
    assert main(words) == 0
    assert "names other classes than these annotations" in error(*words, "--only", "cat")
    write_set(rectangle(1, 3, 2, 3, 9), names=("cat", "background"))
    assert "or one 'background'" in error(*words[:2], str(tmp_path / "other"))
    (tmp_path / "third/JPEGImages").mkdir(parents=True)
    (tmp_path / "third/JPEGImages/a.jpg").write_bytes(b"")
    words = write_set(rectangle(1, 3, 2, 3, 9))
    assert "is a file and no link of an earlier call" in error(*words[:2], str(tmp_path / "third"))


def test_another_image_of_the_same_name_replaces_nothing(
    write_set: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mask would be that of the first list's image; the same call may be repeated."""
    words = write_set(rectangle(1, 3, 2, 3, 9))
    assert main(words) == main(words) == 0
    other = tmp_path / "others"
    other.mkdir()
    Image.new("RGB", SIZE[::-1]).save(other / "a.jpg")
    before = (tmp_path / "out/SegmentationClass/a.png").read_bytes()
    write_set(rectangle(1, 7, 2, 3, 9))
    assert main([words[0], str(other), words[2], "--split", "val"]) == 2
    assert "has the same name; give another OUT" in capsys.readouterr().err
    assert (tmp_path / "out/SegmentationClass/a.png").read_bytes() == before
    assert not (tmp_path / "out/ImageSets/Segmentation/val.txt").exists()


@pytest.mark.parametrize("split", ["", "..", "../../x"])
def test_a_split_is_a_name(
    write_set: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    split: str,
) -> None:
    """Nothing is written elsewhere."""
    words = write_set(rectangle(1, 3, 2, 3, 9))
    assert main([*words, "--split", split]) == 2
    assert f"--split expects the name of a list, found '{split}'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_config_holds_wherever_it_is_read(
    write_set: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is absolute."""
    words = write_set(rectangle(1, 3, 2, 3, 9))
    monkeypatch.chdir(tmp_path)
    assert main([*words[:2], "out"]) == 0
    config = load_config(SegmentationConfig, tmp_path / "out/config.yaml")
    assert config.data.root == tmp_path / "out"


def test_real_annotations_become_masks(rsa_data: Path, tmp_path: Path) -> None:
    """All of coco_mini's: the probe's reader takes each mask, and pixels are pycocotools' own.

    A pixel that only objects of one category cover has its class.
    """
    folder = rsa_data / "coco_mini"
    for split in ("train", "val"):
        words = [folder / f"annotations/instances_{split}2017.json", folder / f"{split}2017"]
        assert main([*map(str, words), str(tmp_path / "coco"), "--split", split]) == 0
    config = load_config(SegmentationConfig, tmp_path / "coco/config.yaml")
    train, test = open_masked_splits(config.data, config.masks)
    assert (len(train), len(test), len(train.class_names)) == (39, 44, 81)
    for images in (train, test):
        for index in range(len(images)):
            images.check_mask(index)
    coco = COCO(str(folder / "annotations/instances_val2017.json"))
    category_ids = sorted(coco.cats)
    covered = 0
    for index, image in enumerate(sorted(coco.dataset["images"], key=lambda one: one["id"])):
        mask = test.mask(index)
        entries = coco.imgToAnns[image["id"]]
        classes = np.zeros((len(category_ids) + 1, *mask.shape), bool)
        for entry in entries:
            row = 0 if entry["iscrowd"] else category_ids.index(entry["category_id"]) + 1
            classes[row] |= coco.annToMask(entry) == 1
        alone = classes.sum(axis=0) == 1
        expected = np.where(classes[0], 255, classes.argmax(axis=0))
        assert (mask[alone] == expected[alone]).all()
        assert (mask[classes.sum(axis=0) == 0] == 0).all()
        covered += int(alone.sum())
    assert covered > 1e5
