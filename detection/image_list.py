"""A plain folder of photographs as the images of a COCO-format file, and their sizes by header."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from detection.masks import Size
from rsa_pretrain.decode import EncodedImage
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_folder import report_left_out, walk
from rsa_pretrain.parallel import map_in_threads
from rsa_pretrain.read_rules import ReadRules

logger = logging.getLogger(__name__)

_SHOWN = 5


def list_images(folder: Path, rules: ReadRules) -> list[dict[str, Any]]:
    """List the photographs below a folder as COCO's entries, numbered from 1 in their names' order.

    Hidden and system files are left out; so are files that are no image, with a warning.

    Args:
        folder: Root.
        rules: How the images are read.

    Raises:
        UserError: If there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is neither an annotation file nor a folder of images")
    names, left_out = walk(folder)
    report_left_out(folder, left_out)
    paths = [folder / name for name in names]
    sizes = list(
        map_in_threads(partial(_size_or_fault, rules=rules), paths, "reading sizes", "img")
    )
    faults = [size for size in sizes if isinstance(size, str)]
    if len(faults) == len(names):
        raise UserError(f"no image below '{folder}' ({len(faults):,} other files)")
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + ("; …" if len(faults) > _SHOWN else "")
        logger.warning("left out: %d files of '%s': %s", len(faults), folder, shown)
    found = [
        (name, size) for name, size in zip(names, sizes, strict=True) if isinstance(size, tuple)
    ]
    return [
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, (name, (height, width)) in enumerate(found, start=1)
    ]


def header_size(path: Path, rules: ReadRules) -> Size:
    """Return the size in which ``read_image`` shows a file, by its header.

    Raises:
        UserError: If it cannot be opened as an image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from None
    return EncodedImage(content, f"'{path}'", "remove or replace it", rules).size()


def _size_or_fault(path: Path, rules: ReadRules) -> Size | str:
    try:
        return header_size(path, rules)
    except UserError as error:
        return str(error).partition("; ")[0]
