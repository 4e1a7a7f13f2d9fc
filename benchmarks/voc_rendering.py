"""Render a COCO-format set in PASCAL VOC's format, to measure on real images without VOC.

    python -m benchmarks.voc_rendering ANNOTATIONS.json IMAGES OUT [--set 2007/trainval]

OUT becomes a folder VOCdevkit. Boxes are rounded to whole pixels, crowds become difficult objects,
masks are dropped. OUT/classes.yaml has the class names, as a layer below a config.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import yaml

from detection.coco.box_forms import box_of
from detection.coco.data_settings import VocDataConfig
from detection.coco.images import read_image
from detection.coco.sets import CocoSet, open_coco
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.atomic_files import TEMPORARY_PREFIX, atomic_file, write_text
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_files import read_text

_CLASSES_FILE = "classes.yaml"
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_QUALITY = 95


def render_voc(coco: CocoSet, out: Path, name: str = "2007/trainval") -> None:
    """Write annotation files, the list of images, and the images, linked where that is possible.

    Args:
        coco: The set; file names without their suffixes become image ids, and must be distinct.
        out: The folder VOCdevkit; sets already in it stay.
        name: YEAR/SET of the list.

    Raises:
        UserError: If two images have the same name, the set's name is none, ``out`` has other
            classes, an image cannot be decoded, or a file cannot be written.
    """
    settings = {"name": "rendered", "format": "voc", "root": out, "train": [name], "test": [name]}
    parse_tree(VocDataConfig, settings, f"--set {name}")
    names = [coco.category_names[number] for number in coco.category_ids]
    classes = yaml.safe_dump({"data": {"classes": names}})
    _refuse_other_classes(out / _CLASSES_FILE, classes)
    try:
        _write(coco, out, name)
        write_text(out / _CLASSES_FILE, classes)
    except OSError as error:
        raise UserError(f"cannot write to '{out}': {error.strerror or error}") from None


def _refuse_other_classes(path: Path, classes: str) -> None:
    if path.is_file() and read_text(path) != classes:
        raise UserError(f"'{path}' names other classes; render into another folder")


def _write(coco: CocoSet, out: Path, name: str) -> None:
    year, _, image_set = name.partition("/")
    root = out / f"VOC{year}"
    ids = {image["id"]: Path(image["file_name"]).stem for image in coco.images}
    if len(set(ids.values())) < len(ids):
        raise UserError(f"images of '{coco.annotations_path}' share names, which VOC's cannot")
    by_image: dict[int, list[dict[str, Any]]] = {number: [] for number in ids}
    for entry in coco.tree["annotations"]:
        by_image[entry["image_id"]].append(entry)
    for image in coco.images:
        voc_id = ids[image["id"]]
        text = _annotation(image, voc_id, by_image[image["id"]], coco.category_names)
        write_text(root / "Annotations" / f"{voc_id}.xml", text)
        target = root / "JPEGImages" / f"{voc_id}.jpg"
        _place(coco.images_dir / image["file_name"], target, coco.rules)
    lines = "".join(f"{ids[image['id']]}\n" for image in coco.images)
    write_text(root / "ImageSets" / "Main" / f"{image_set}.txt", lines)


def voc_box(entry: dict[str, Any], height: int, width: int) -> list[int]:
    """Return xmin, ymin, xmax and ymax: of whole pixels, counted from 1, the last included."""
    x0, y0, x1, y1 = (round(value) for value in box_of(entry, (height, width)))
    xmin, ymin = min(x0 + 1, width), min(y0 + 1, height)
    return [xmin, ymin, max(x1, xmin), max(y1, ymin)]


def _annotation(
    image: dict[str, Any],
    voc_id: str,
    entries: Sequence[dict[str, Any]],
    names: dict[int, str],
) -> str:
    height, width = image["height"], image["width"]
    root = ET.Element("annotation")
    _add(root, "filename", f"{voc_id}.jpg")
    size = ET.SubElement(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, key, value)
    for entry in entries:
        thing = ET.SubElement(root, "object")
        _add(thing, "name", names[entry["category_id"]])
        _add(thing, "pose", "Unspecified")
        _add(thing, "truncated", 0)
        _add(thing, "difficult", int(entry.get("iscrowd", 0) or entry.get("difficult", 0)))
        box = ET.SubElement(thing, "bndbox")
        corners = voc_box(entry, height, width)
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            _add(box, key, value)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add(parent: ET.Element, tag: str, value: object) -> None:
    ET.SubElement(parent, tag).text = str(value)


def _place(source: Path, target: Path, rules: ReadRules) -> None:
    """Link a JPEG file or else copy it; encode any other image. The source may be the target."""
    if target.exists() and target.samefile(source):
        return
    if source.suffix.lower() not in _JPEG_SUFFIXES:
        image = read_image(source, rules)
        with atomic_file(target) as temporary:
            image.save(temporary, quality=_QUALITY)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    link = target.with_name(f"{TEMPORARY_PREFIX}{target.name}")
    link.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), link)
    except OSError:
        shutil.copyfile(source, link)
    link.replace(target)


def main(words: Sequence[str]) -> int:
    """Render the set that the words name; return 0, or 2 after a mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.voc_rendering")
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", default="2007/trainval", metavar="YEAR/SET", dest="name")
    arguments = parser.parse_args(words)
    try:
        coco = open_coco(arguments.annotations, arguments.images)
        render_voc(coco, arguments.out, arguments.name)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{len(coco.images):,} images in {arguments.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
