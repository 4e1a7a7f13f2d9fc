"""Describe how each tool names and places its files, and recognise a folder's tool."""

from pathlib import Path
from typing import NamedTuple

from detection.coco.importers.image_index import without_suffix
from rsa_pretrain.data.image_folder import report_left_out, walk
from rsa_pretrain.plumbing.errors import UserError

# Text files that are stored among YOLO's labels, or VOC's and LabelMe's files, but are not labels.
_NO_LABELS = {
    "classes",
    "labels",
    "predefined_classes",
    "train",
    "val",
    "valid",
    "test",
    "trainval",
}


class Tool(NamedTuple):
    """A tool's conventions for naming and placing its files.

    Attributes:
        name: Its name on the command line.
        suffix: Of its annotation files.
        folder: Name of their folder, beside the images'; None: they are among the images.
        images: Name of the images' folder.
        covers_all_images: Whether an image without an annotation file is one without objects.
    """

    name: str
    suffix: str
    folder: str | None = None
    images: str | None = None
    covers_all_images: bool = False

    def annotations_in(self, source: Path) -> Path:
        """Return the folder of the annotation files, which may be ``source`` itself."""
        below = source / (self.folder or "")
        return below if below.is_dir() else source

    def images_of(self, folder: Path) -> Path:
        """Return the folder of the images that belong to a folder of annotation files."""
        for path in (folder, folder.absolute()):
            swapped = Path(self.image_folder(path.as_posix()))
            if swapped != path and swapped.is_dir():
                return swapped
        return folder

    def image_folder(self, folder: str) -> str:
        """Replace the last occurrence of the annotations' folder in a path by the images'."""
        parts = folder.split("/")
        for position in reversed(range(len(parts))):
            if parts[position] == self.folder and self.images is not None:
                return "/".join([*parts[:position], self.images, *parts[position + 1 :]])
        return folder

    def files_in(self, folder: Path) -> list[str]:
        """List the annotation files below a folder, relative to it."""
        listing = walk(folder)
        report_left_out(folder, listing.left_out)
        names = [name for name in listing.names if name.lower().endswith(self.suffix)]
        return [name for name in names if self.suffix != ".txt" or not _is_no_label(name)]


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("labelme", ".json"),
        Tool("voc", ".xml", "Annotations", "JPEGImages"),
        Tool("yolo", ".txt", "labels", "images", covers_all_images=True),
    )
}


def recognise(source: Path) -> Tool:
    """Return the tool whose files a folder contains; one with its own subfolder takes precedence.

    Raises:
        UserError: If there are files of no tool or of several.
    """
    found = [tool for tool in TOOLS.values() if tool.files_in(tool.annotations_in(source))]
    found = [tool for tool in found if tool.annotations_in(source) != source] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"no annotation file (.json, .xml, .txt) below '{source}'")
    names = " and ".join(f"{tool.name} ({tool.suffix})" for tool in found)
    raise UserError(f"'{source}' may be of {names}; choose with --from")


def _is_no_label(name: str) -> bool:
    stem = without_suffix(name.rpartition("/")[2]).lower()
    return stem in _NO_LABELS or stem.startswith("readme")
