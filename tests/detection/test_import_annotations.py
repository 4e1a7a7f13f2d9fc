import base64
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_codec

from detection.__main__ import main
from detection.coco import CocoSet, open_coco, training_images
from detection.data_check import check_set
from detection.import_annotations import ImportConfig, import_annotations
from detection.masks import encode_mask
from rsa_pretrain.errors import UserError
from rsa_pretrain.read_rules import ReadRules

Tree = dict[str, Any]
SIZE = (40, 60)


def _by_image(coco: CocoSet) -> list[tuple[Tree, list[tuple[str, Tree]]]]:
    names = coco.category_names
    return [
        (
            image,
            [
                (names[entry["category_id"]], entry)
                for entry in coco.tree["annotations"]
                if entry["image_id"] == image["id"]
            ],
        )
        for image in coco.images
    ]


def _write_labelme(coco: CocoSet, folder: Path) -> Path:
    """One JSON beside each image; parts of an object are shapes of a group, codes are masks."""
    shutil.copytree(coco.images_dir, folder)
    for image, objects in _by_image(coco):
        shapes = []
        for number, (label, entry) in enumerate(objects):
            mask = entry["segmentation"]
            common = {"label": label, "group_id": number, "flags": {}, "description": ""}
            if isinstance(mask, list):
                for outline in mask:
                    points = np.reshape(outline, (-1, 2)).tolist()
                    shapes.append({**common, "shape_type": "polygon", "points": points})
            else:
                pixels = mask_codec.decode(encode_mask(mask, (image["height"], image["width"])))
                x, y, width, height = map(int, mask_codec.toBbox(mask_codec.encode(pixels)))
                encoded = _encoded(pixels[y : y + height, x : x + width])
                points = [[x, y], [x + width - 1, y + height - 1]]
                shapes.append({**common, "shape_type": "mask", "points": points, "mask": encoded})
        tree = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": image["file_name"],
            "imageData": None,
            "imageHeight": image["height"],
            "imageWidth": image["width"],
        }
        path = (folder / image["file_name"]).with_suffix(".json")
        path.write_text(json.dumps(tree), encoding="utf-8")
    return folder


def _encoded(pixels: Any) -> str:
    with io.BytesIO() as file:
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")


def _write_voc(coco: CocoSet, folder: Path) -> Path:
    """Annotations/*.xml with boxes whose pixels count from 1, and JPEGImages/."""
    shutil.copytree(coco.images_dir, folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for image, objects in _by_image(coco):
        lines = []
        for label, entry in objects:
            x, y, width, height = entry["bbox"]
            lines.append(
                f"<object><name>{escape(label)}</name><bndbox><xmin>{x + 1}</xmin>"
                f"<ymin>{y + 1}</ymin><xmax>{x + width}</xmax><ymax>{y + height}</ymax></bndbox>"
                "</object>"
            )
        (folder / "Annotations" / image["file_name"]).with_suffix(".xml").write_text(
            f"<annotation><filename>{image['file_name']}</filename><size>"
            f"<width>{image['width']}</width><height>{image['height']}</height><depth>3</depth>"
            f"</size>{''.join(lines)}</annotation>",
            encoding="utf-8",
        )
    return folder


def _write_yolo(coco: CocoSet, folder: Path, *, outlines: bool) -> Path:
    """labels/*.txt and images/; an object is its box, or its only outline where it has one."""
    shutil.copytree(coco.images_dir, folder / "images")
    (folder / "labels").mkdir()
    names = [entry["name"] for entry in coco.tree["categories"]]
    (folder / "data.yaml").write_text(
        "train: images\nnames:\n" + "".join(f"  {n}: {name}\n" for n, name in enumerate(names)),
        encoding="utf-8",
    )
    for image, objects in _by_image(coco):
        sides = np.array([image["width"], image["height"]])
        lines = []
        for label, entry in objects:
            mask = entry["segmentation"]
            if outlines and isinstance(mask, list) and len(mask) == 1:
                values = (np.reshape(mask[0], (-1, 2)) / sides).ravel()
            else:
                x, y, width, height = entry["bbox"]
                box = [[x + width / 2, y + height / 2], [width, height]]
                values = (np.array(box) / sides).ravel()
            words = [f"{value:.6f}" for value in values]
            lines.append(" ".join([str(names.index(label)), *words]) + "\n")
        if lines:
            path = (folder / "labels" / image["file_name"]).with_suffix(".txt")
            path.write_text("".join(lines), encoding="ascii")
    return folder


FORMATS: dict[str, Callable[[CocoSet, Path], Path]] = {
    "labelme": _write_labelme,
    "voc": _write_voc,
    "yolo": lambda coco, folder: _write_yolo(coco, folder, outlines=False),
    "yolo outlines": lambda coco, folder: _write_yolo(coco, folder, outlines=True),
}


def _check_round_trip(coco: CocoSet, name: str, folder: Path) -> None:
    """Write a set as another tool does, import it, and compare object by object."""
    source = FORMATS[name](coco, folder / "exported")
    out = folder / "imported.json"
    _, images_dir = import_annotations(ImportConfig(source), out)
    found = open_coco(out, images_dir)
    assert found.repairs == ()
    assert len(training_images(found)) > 0
    assert check_set(out, images_dir, "train").errors == {}
    assert [image["id"] for image in found.images] == list(range(1, len(found.images) + 1))
    ids = [entry["id"] for entry in found.tree["annotations"]]
    assert ids == list(range(1, len(ids) + 1))

    expected = {image["file_name"]: (image, objects) for image, objects in _by_image(coco)}
    assert {image["file_name"] for image in found.images} == expected.keys()
    for image, objects in _by_image(found):
        original, originals = expected[image["file_name"]]
        size = (image["height"], image["width"])
        assert size == (original["height"], original["width"])
        for (label, entry), (wanted, reference) in zip(objects, originals, strict=True):
            assert label == wanted
            is_code = isinstance(reference["segmentation"], dict)
            # YOLO's six decimals are half a thousandth of a pixel here, thrice for an edge; a
            # code's box counts whole pixels. COCO's own boxes are rounded to a hundredth.
            tolerance = 1.5 if is_code and name == "labelme" else 0.02
            assert entry["bbox"] == pytest.approx(reference["bbox"], abs=tolerance)
            if "segmentation" not in entry:
                _, _, width, height = reference["bbox"]
                assert entry["area"] == pytest.approx(width * height, rel=0.005, abs=0.1)
                continue
            masks = [
                mask_codec.decode(encode_mask(part["segmentation"], size))
                for part in (entry, reference)
            ]
            assert entry["area"] == masks[0].sum()
            # Corners a thousandth of a pixel away may turn pixels at the edge.
            differing = int((masks[0] != masks[1]).sum())
            assert differing <= (0 if name == "labelme" else 0.02 * masks[1].sum() + 2)


@pytest.mark.parametrize("name", FORMATS)
def test_drawn_shapes_come_back(name: str, shapes_test_set: CocoSet, tmp_path: Path) -> None:
    """A set written as each tool writes it is the same set, within the format's rounding."""
    _check_round_trip(shapes_test_set, name, tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize("name", FORMATS)
def test_coco_comes_back(name: str, rsa_data: Path, tmp_path: Path) -> None:
    """So is real data: objects of several parts, run-length codes, images without objects."""
    folder = rsa_data / "coco_mini"
    coco = open_coco(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    objects = [entry for entry in coco.tree["annotations"] if not entry["iscrowd"]]
    if name == "labelme":  # as parts that overlap no other: crowds are codes
        objects = [{**entry, "iscrowd": 0} for entry in coco.tree["annotations"]]
    kept = CocoSet(coco.annotations_path, coco.images_dir, {**coco.tree, "annotations": objects})
    _check_round_trip(kept, name, tmp_path)
