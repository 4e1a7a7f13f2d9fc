"""Draw the objects of a COCO-format set as masks in PASCAL VOC's layout.

    python -m benchmarks.semantic_masks ANNOTATIONS IMAGES OUT --split train

``OUT`` then has ImageSets/Segmentation/train.txt, SegmentationClass/ID.png and links to the images
in JPEGImages. A second call with ``--split val`` adds those of other annotations. ``config.yaml``
there names folder and classes, for ``rsa-eval segmentation CHECKPOINT --config OUT/config.yaml``.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from detection.coco.masks import Size, area_of, has_sound_mask, render_mask
from detection.coco.sets import CocoSet, open_coco, without_mask
from rsa_eval.evaluators.segmentation.settings import is_single_name
from rsa_pretrain.plumbing.atomic_files import atomic_file, write_text
from rsa_pretrain.plumbing.command_line import Parser, run_command, say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_files import read_text

_VOID = 255
_CONFIG = "config.yaml"
_BACKGROUND = "background"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    arguments = semantic_masks_parser().parse_args(argv)
    if not is_single_name(arguments.split):
        raise UserError(f"--split expects the name of a list, found '{arguments.split}'")
    coco = open_coco(arguments.annotations, arguments.images, images_key="IMAGES")
    if arguments.only is not None:
        coco = _with_categories(coco, arguments.only.split(","))
    count = write_semantic_masks(coco, arguments.out, arguments.split)
    say(f"{count} masks: {arguments.out}")
    return 0


def semantic_masks_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(prog="python -m benchmarks.semantic_masks", description=__doc__)
    parser.add_argument("annotations", metavar="ANNOTATIONS", type=Path, help="COCO-format JSON")
    parser.add_argument("images", metavar="IMAGES", type=Path, help="folder of its images")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--split", default="train", help="name of the list (default: %(default)s)")
    parser.add_argument(
        "--only",
        metavar="NAMES",
        help="categories that are classes, as in person,dog (default: all); objects of the others "
        "are background",
    )
    return parser


def write_semantic_masks(coco: CocoSet, out: Path, split: str) -> int:
    """Write a mask for each image, the list of them, links to the images, and a config.

    Args:
        coco: The set; its categories, in the order of their ids, are classes 1, 2, … beside the
            background, 0.
        out: Folder in the layout of VOC2012.
        split: Name of the list.

    Returns:
        Number of masks.

    Raises:
        UserError: If an object has no mask, there are more than 254 categories, names of images
            make no distinct ids, or the folder's classes are others.
    """
    classes = _class_names(coco)
    lacking = without_mask(coco.tree["annotations"])
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(coco.tree['annotations'])} annotations of "
            f"'{coco.annotations_path}' have no mask: ids "
            f"{first_of([str(entry['id']) for entry in lacking])}; their pixels would be background"
        )
    ids = _ids(coco)
    links = {
        image["id"]: (_image_path(out, ids[image["id"]]), coco.images_dir / image["file_name"])
        for image in coco.images
    }
    for path, file in links.values():
        _check_link(path, file)
    _write_config(out, classes)
    by_image: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in coco.images}
    for entry in coco.tree["annotations"]:
        by_image[entry["image_id"]].append(entry)
    value_of = {category: value for value, category in enumerate(coco.category_ids, start=1)}
    for image in coco.images:
        size = (image["height"], image["width"])
        mask = draw_classes(by_image[image["id"]], size, value_of)
        name = ids[image["id"]]
        _write_mask(out / "SegmentationClass" / f"{name}.png", mask)
        _link(*links[image["id"]])
    listed = [ids[image["id"]] for image in coco.images]
    write_text(out / "ImageSets" / "Segmentation" / f"{split}.txt", "\n".join(listed) + "\n")
    return len(listed)


def draw_classes(
    entries: Sequence[Mapping[str, Any]], size: Size, value_of: Mapping[int, int]
) -> npt.NDArray[np.uint8]:
    """Draw annotations of one image: smaller objects above larger ones, crowds below all.

    Args:
        entries: COCO's annotations.
        size: Height and width of the image.
        value_of: Value of each category.

    Returns:
        Values, 0 for the background and 255 for crowds, (H, W).

    Raises:
        UserError: If a mask cannot be drawn.
    """
    broken = [entry for entry in entries if not has_sound_mask(entry["segmentation"], size)]
    if broken:
        raise UserError(f"annotation {broken[0]['id']} has a mask that does not fit its image")
    mask = np.zeros(size, np.uint8)
    crowds = [entry for entry in entries if entry.get("iscrowd", 0)]
    objects = [entry for entry in entries if not entry.get("iscrowd", 0)]
    for entry in crowds:
        mask[render_mask(entry["segmentation"], size, size) == 1] = _VOID
    for entry in sorted(objects, key=lambda one: -area_of(one["segmentation"], size)):
        drawn = render_mask(entry["segmentation"], size, size) == 1
        mask[drawn] = value_of[entry["category_id"]]
    return mask


def voc_palette() -> list[int]:
    """Return VOC's 256 colours: bits 0, 3, 6 of an index make red, from its highest bit down.

    Bits 1, 4, 7 make green, and 2, 5 blue.
    """
    colours = []
    for index in range(256):
        for channel in range(3):
            bits = [index >> (3 * place + channel) & 1 for place in range(3)]
            colours.append(sum(bit << (7 - place) for place, bit in enumerate(bits)))
    return colours


def _with_categories(coco: CocoSet, names: Sequence[str]) -> CocoSet:
    """Keep some categories and their annotations, and all images."""
    unknown = sorted(set(names) - set(coco.category_names.values()))
    if unknown:
        raise UserError(
            f"'{coco.annotations_path}' has no category '{unknown[0]}'; expected some of "
            f"{first_of(sorted(coco.category_names.values()))}"
        )
    kept = {number for number, name in coco.category_names.items() if name in names}
    categories = [entry for entry in coco.tree["categories"] if entry["id"] in kept]
    entries = [entry for entry in coco.tree["annotations"] if entry["category_id"] in kept]
    tree = coco.tree | {"categories": categories, "annotations": entries}
    return replace(coco, tree=tree)


def _class_names(coco: CocoSet) -> list[str]:
    names = [coco.category_names[category] for category in coco.category_ids]
    if len(names) > _VOID - 1:
        raise UserError(f"'{coco.annotations_path}' has {len(names)} categories, at most 254 fit")
    if len({_BACKGROUND, *names}) <= len(names):
        raise UserError(
            f"'{coco.annotations_path}' names a category twice, or one '{_BACKGROUND}'; rename it"
        )
    return [_BACKGROUND, *names]


def _ids(coco: CocoSet) -> dict[int, str]:
    """Return the name of each image without its folder and ending, by its id."""
    ids = {image["id"]: PurePosixPath(image["file_name"]).stem for image in coco.images}
    odd = [name for name in ids.values() if len(name.split()) != 1]
    if odd or len(set(ids.values())) < len(ids):
        raise UserError(
            f"the images of '{coco.annotations_path}' have names with spaces, or that differ only "
            f"in folder or ending: {first_of(odd or sorted(ids.values()))}; rename them"
        )
    return ids


def _write_config(out: Path, classes: list[str]) -> None:
    path = out / _CONFIG
    if path.exists():
        tree = yaml.safe_load(read_text(path))
        found = tree.get("masks", {}).get("classes") if isinstance(tree, dict) else None
        if found != classes:
            raise UserError(
                f"'{path}' names other classes than these annotations; give another OUT, or "
                "annotations of the same categories"
            )
        return
    tree = {
        "data": {
            "name": "imagefolder",
            "root": str(out.resolve()),
            "image_size": 512,
            "eval_resize": None,
            "eval_interpolation": "bicubic",
        },
        "masks": {"name": _set_name(out), "layout": "voc", "classes": classes},
    }
    write_text(path, yaml.safe_dump(tree, sort_keys=False))


def _set_name(out: Path) -> str:
    """Return the folder's name, without characters that names of sets cannot have."""
    name = re.sub(r"[^\w.+-]", "_", out.resolve().name)
    return name if name[:1].isalnum() else f"set{name}"


def _write_mask(path: Path, mask: npt.NDArray[np.uint8]) -> None:
    image = Image.fromarray(mask, mode="L")
    image.putpalette(voc_palette())  # makes it one of palette indices
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        image.save(file, "PNG")


def _image_path(out: Path, name: str) -> Path:
    return out / "JPEGImages" / f"{name}.jpg"


def _check_link(path: Path, image: Path) -> None:
    """Refuse to replace a file, or a link to another image, whose mask would be lost."""
    if path.is_symlink():
        if path.resolve() != image.resolve():
            raise UserError(
                f"'{path}' is a link to '{path.resolve()}' by an earlier call, and '{image}' has "
                "the same name; give another OUT, or rename the images"
            )
    elif path.exists():
        raise UserError(f"'{path}' is a file and no link of an earlier call; give another OUT")


def _link(path: Path, image: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(image.resolve())


if __name__ == "__main__":
    sys.exit(main())
