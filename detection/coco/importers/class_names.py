"""Read class names in the order of their numbers."""

import logging
from pathlib import Path
from typing import Any

from detection.coco.importers.annotated import text_of
from detection.coco.loose_numbers import as_whole
from detection.coco.sets import read_sound_tree
from rsa_pretrain.plumbing.config.layers import parse_yaml_of_texts
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_files import read_limited

_log = logging.getLogger(__name__)

_YAML_SUFFIXES = (".yaml", ".yml")
_USUAL_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_FOLDERS_ABOVE = 2
# LabelMe's lists of labels begin with these, which label no object.
_PLACEHOLDERS = {"__ignore__", "_background_"}


def read_class_names(path: Path) -> list[str]:
    """Read names in the order of their numbers.

    Args:
        path: YOLO's YAML with ``names``; COCO-format JSON, whose categories count from 1; or a text
            file with one name per line, in which empty lines and LabelMe's ``__ignore__`` and
            ``_background_`` are skipped.

    Raises:
        UserError: If the file is unreadable or empty, lists a name twice or skips a number.
    """
    suffix = path.suffix.lower()
    text = "" if suffix == ".json" else text_of(str(path), read_limited(path))
    if suffix in _YAML_SUFFIXES:
        names = _yaml_names(path, text)
    elif suffix == ".json":
        names = _coco_names(path)
    else:
        names = [line.strip() for line in text.splitlines()]
        names = [name for name in names if name and name not in _PLACEHOLDERS]
    if not names:
        raise UserError(f"'{path}' lists no class names")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"'{path}' lists class names twice: {first_of(repeated)}")
    return names


def find_class_names(folder: Path) -> list[str]:
    """Find and read the class names stored in or above a YOLO data set's label folder.

    Raises:
        UserError: If there is no such file, or two that disagree.
    """
    folders = [folder.absolute(), *folder.absolute().parents][: _FOLDERS_ABOVE + 1]
    paths = [place / name for place in folders for name in _USUAL_FILES]
    found = {path: read_class_names(path) for path in paths if path.is_file()}
    if not found:
        raise UserError(
            f"no class names in '{folder}' or the {_FOLDERS_ABOVE} folders above it "
            f"({', '.join(_USUAL_FILES)}); name their file with --classes"
        )
    if len(set(map(tuple, found.values()))) > 1:
        named = " and ".join(f"'{path}'" for path in found)
        raise UserError(f"class names differ between {named}; name one of them with --classes")
    path = next(iter(found))
    _log.info("class names from '%s'", path)
    return found[path]


def _coco_names(path: Path) -> list[str]:
    categories = read_sound_tree(path, needs_annotations=False)["categories"]
    by_id = {entry["id"]: entry["name"] for entry in categories}
    if set(by_id) != set(range(1, len(by_id) + 1)):
        raise UserError(f"'{path}' should number its categories from 1 without gaps")
    return [by_id[number] for number in sorted(by_id)]


def _yaml_names(path: Path, text: str) -> list[str]:
    tree = parse_yaml_of_texts(text, f"'{path}'")
    names: Any = tree.get("names") if isinstance(tree, dict) else None
    if isinstance(names, dict):
        numbers = {as_whole(key): name for key, name in names.items()}
        if set(numbers) != set(range(len(names))):
            raise UserError(f"'{path}' should number its names from 0 without gaps")
        names = [numbers[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"'{path}' has no list 'names' of class names")
    if "kpt_shape" in tree:
        raise UserError(
            f"'{path}' describes key points (kpt_shape), which COCO-format instances do "
            "not have; import its boxes from a YAML and labels without them"
        )
    count = as_whole(tree.get("nc", str(len(names))))
    if count != len(names):
        raise UserError(f"'{path}' lists {len(names)} names, but its nc is {tree['nc']}")
    return [name.strip() for name in names]
