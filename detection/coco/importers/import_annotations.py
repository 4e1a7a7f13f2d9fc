"""Import another tool's annotation files into one COCO-format file."""

import json
import logging
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from detection.coco.image_list import header_size
from detection.coco.image_places import where_images_are
from detection.coco.importers import labelme, voc, yolo
from detection.coco.importers.annotated import AnnotatedImage, Notes, ParsedFile, coco_sections
from detection.coco.importers.class_names import find_class_names, read_class_names
from detection.coco.importers.image_index import ImageIndex, without_suffix
from detection.coco.importers.tools import TOOLS, Tool, recognise
from detection.coco.masks import Size
from rsa_pretrain.data.read_settings import DEFAULT_RULES, ReadRules
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated, is_generated
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.plumbing.text_files import read_limited

_log = logging.getLogger(__name__)

_INFO = {"description": "annotations imported by rsa-detect import-annotations"}
_OPENING = json.dumps({"info": _INFO}).rstrip("}")
_FOUND_BY_NAME = "annotation files whose image is elsewhere than stated, found by name"
_WITHOUT_FILE = {
    True: "images without an annotation file; images without objects",
    False: "images without an annotation file, left out",
}

Parse = Callable[[str, bytes, Notes], ParsedFile]


@dataclass(frozen=True)
class ImportConfig:
    """Source and reading rules of an import."""

    source: Path
    """Folder with the annotation files in it or below it."""
    tool: str | None = None
    """Key of ``TOOLS``; None recognises it by the files."""
    images: Path | None = None
    """Folder of the images; None takes the tool's usual place."""
    classes: Path | None = None
    """File of the class names; None takes the tool's own."""
    rules: ReadRules = DEFAULT_RULES
    """Rules for reading images."""


class Imported(NamedTuple):
    """The written content and the folder that its file names are relative to."""

    tree: dict[str, Any]
    images_dir: Path


def import_annotations(config: ImportConfig, out: Path) -> Imported:
    """Write the annotations of another tool as one COCO-format file.

    Content that is not carried over is logged, one line per kind. Categories are numbered from 1 in
    the order of YOLO's own numbers, of the given file of class names, or else of the sorted names.

    Args:
        config: Source of the import.
        out: File to write.

    Raises:
        UserError: If a file is not as its tool writes it, an image is missing or differs in size,
            or there is no object; nothing is written then.
    """
    if out.suffix != ".json":
        raise UserError(f"OUT should end in .json, found '{out}'")
    check_generated(out, _OPENING)
    if not config.source.is_dir():
        raise UserError(f"'{config.source}' is not a folder of annotation files")
    tool = recognise(config.source) if config.tool is None else TOOLS[config.tool]
    folder = tool.annotations_in(config.source)
    files = tool.files_in(folder)
    if not files:
        raise UserError(f"no annotation file ({tool.suffix}) below '{folder}'")
    folders = sorted({posixpath.dirname(file) or "." for file in files})
    if len(folders) > 1:
        _log.warning(
            "files of %d folders go into one set (%s); import them one by one for separate sets",
            len(folders),
            first_of(folders),
        )
    index = ImageIndex(config.images or tool.images_of(folder))
    class_names = None if config.classes is None else read_class_names(config.classes)
    if tool.name == "yolo" and class_names is None:
        class_names = find_class_names(folder)
    reader = _Reader(tool, folder, index, config.rules)
    images = reader.read(files, _parser(tool, class_names, config.rules))
    labels = _labels(images, class_names, config.classes)
    sections = coco_sections(images, labels, reader.notes)
    reader.notes.report()
    if not sections["annotations"]:
        raise UserError(f"no object in the {len(files):,} annotation files below '{folder}'")
    tree = {"info": _INFO | {"source": tool.name}, **sections}
    write_text(out, json.dumps(tree) + "\n")
    return Imported(tree, index.folder)


def _parser(tool: Tool, class_names: Sequence[str] | None, rules: ReadRules) -> Parse:
    parsers: dict[str, Parse] = {
        "labelme": partial(labelme.parse, rules=rules),
        "voc": voc.parse,
        "yolo": partial(yolo.parse, names=class_names or ()),
    }
    return parsers[tool.name]


def _labels(
    images: Sequence[AnnotatedImage], class_names: list[str] | None, classes: Path | None
) -> list[str]:
    """Return the category names in the order of their ids."""
    used = Counter(instance.label for image in images for instance in image.instances)
    if class_names is None:
        return sorted(used)
    unlisted = [f"'{name}' ({used[name]:,})" for name in sorted(used.keys() - set(class_names))]
    if unlisted:
        raise UserError(
            f"'{classes}' does not list the labels of all objects: {first_of(unlisted)}"
        )
    return class_names


class _Reader:
    """Reads annotation files and finds their images.

    Args:
        tool: Tool that wrote the files.
        folder: Folder of the annotation files.
        index: The images.
        rules: How to read them.
    """

    def __init__(self, tool: Tool, folder: Path, index: ImageIndex, rules: ReadRules) -> None:
        self.tool, self.folder, self.index, self.rules = tool, folder, index, rules
        self.notes = Notes()

    def read(self, files: Sequence[str], parse: Parse) -> list[AnnotatedImage]:
        """Return images in order of name; those without an annotation file only if they count.

        Raises:
            UserError: If a file is faulty, or its image missing, different in size or in two files.
        """
        found: dict[str, AnnotatedImage] = {}
        missing: list[tuple[str, str | None]] = []
        with progress_bar(len(files), "reading annotations", "file") as bar:
            for file in files:
                bar.update()
                where = str(self.folder / file)
                content = read_limited(self.folder / file)
                if is_generated(content, _OPENING):
                    continue  # an earlier OUT among LabelMe's files
                parsed = parse(where, content, self.notes)
                image = self._find(file, parsed.image_name)
                if image is None:
                    missing.append((file, parsed.image_name))
                    continue
                if image in found:
                    both = f"'{found[image].source}' and '{where}'"
                    raise UserError(f"{both} both annotate the image '{image}'; keep one")
                size = self._size(where, self.index.folder / image, parsed.size)
                found[image] = AnnotatedImage(image, size, where, parsed.instances(size))
        if missing:
            raise self._missing_images(missing, len(files))
        for image in self.index.names:
            if image not in found:
                self.notes.add(_WITHOUT_FILE[self.tool.covers_all_images], image)
                if self.tool.covers_all_images:
                    size = header_size(self.index.folder / image, self.rules)
                    found[image] = AnnotatedImage(image, size, None, [])
        return [found[image] for image in self.index.names if image in found]

    def _find(self, file: str, named: str | None) -> str | None:
        """Return an annotation file's image: the one it names, or else the one named like it."""
        folder, last = posixpath.split(file)
        own = said = posixpath.join(self.tool.image_folder(folder), without_suffix(last))
        if named is not None:
            said = posixpath.normpath(posixpath.join(folder, named.replace("\\", "/")))
        found = self.index.find(said) or self.index.find(own)
        if found is not None and said not in (found, without_suffix(found)):
            self.notes.add(_FOUND_BY_NAME, f"{file} (says '{said}', found '{found}')")
        return found

    def _size(self, where: str, image: Path, stated: Size | None) -> Size:
        size = header_size(image, self.rules)
        if stated in (None, size):
            return size
        hint = ""
        if stated == size[::-1] and self.rules.exif_orientation:
            hint = "; if it was annotated without its EXIF orientation, give --as-stored"
        raise UserError(
            f"'{where}' is of an image of {stated[1]}x{stated[0]} pixels, but '{image}' has "
            f"{size[1]}x{size[0]}{hint}"
        )

    def _missing_images(self, missing: list[tuple[str, str | None]], count: int) -> UserError:
        entries = [file if name is None else f"{file} (names '{name}')" for file, name in missing]
        named = [(file, name.replace("\\", "/")) for file, name in missing if name is not None]
        beside = [(self.folder / file).parent / name for file, name in named]
        there = next((path for path in beside if path.is_file()), None)
        if there is not None:
            hint = f"; '{there.resolve()}' is there: set --images to a folder above it"
        else:
            names = [name for _, name in named]
            hint = where_images_are(names, self.index.folder, "--images") if names else ""
        return UserError(
            f"{len(missing):,} of {count:,} annotation files have no image below "
            f"'{self.index.folder}': {first_of(entries)}{hint or '; name its folder with --images'}"
        )
