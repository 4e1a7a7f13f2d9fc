"""List a plain folder of images as COCO-format entries, with sizes read from headers."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detection.coco.masks import Size
from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.image_folder import report_left_out, walk
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import open_regular
from rsa_pretrain.plumbing.threads import map_in_threads

_log = logging.getLogger(__name__)

_SHOWN = 5


def list_images(folder: Path, rules: ReadRules) -> list[dict[str, Any]]:
    """List the images below a folder as COCO entries, numbered from 1 in order of name.

    Hidden and system files are left out; so are files that are not images, with a warning.

    Args:
        folder: Root.
        rules: How to read the images.

    Raises:
        UserError: If there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is neither an annotation file nor a folder of images")
    names, left_out = walk(folder)
    report_left_out(folder, left_out)
    sizes, faults = _sizes([folder / name for name in names], rules)
    if len(faults) == len(names):
        raise UserError(
            f"no image below '{folder}' ({len(faults):,} other files); expected files such as "
            ".jpg or .png"
        )
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + ("; …" if len(faults) > _SHOWN else "")
        _log.warning("left out: %d files of '%s': %s", len(faults), folder, shown)
    return _entries([(name, sizes[folder / name]) for name in names if folder / name in sizes])


def list_files(files: Sequence[Path], rules: ReadRules) -> list[dict[str, Any]]:
    """List the given image files as COCO entries, named by path and numbered from 1 in order.

    Args:
        files: At least one.
        rules: How to read the images.

    Raises:
        UserError: If one is missing or not an image.
    """
    sizes, faults = _sizes(files, rules)
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + ("; …" if len(faults) > _SHOWN else "")
        raise UserError(f"{len(faults):,} of {len(files):,} files are not images: {shown}")
    return _entries([(file.as_posix(), sizes[file]) for file in dict.fromkeys(files)])


def _entries(found: Sequence[tuple[str, Size]]) -> list[dict[str, Any]]:
    return [
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, (name, (height, width)) in enumerate(found, start=1)
    ]


def _sizes(paths: Sequence[Path], rules: ReadRules) -> tuple[dict[Path, Size], list[str]]:
    """Return the sizes of the images among files, and the faults of the others."""
    look = partial(_size_or_fault, rules=rules)
    found = list(map_in_threads(look, paths, "reading sizes", "img"))
    sizes = {path: size for path, size in zip(paths, found, strict=True) if isinstance(size, tuple)}
    return sizes, [fault for fault in found if isinstance(fault, str)]


def header_size(path: Path, rules: ReadRules) -> Size:
    """Return the size at which ``read_image`` decodes a file, from its header.

    Raises:
        UserError: If it cannot be opened as an image.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from None
    return EncodedImage(content, f"'{path}'", "remove or replace it", rules).size()


def _size_or_fault(path: Path, rules: ReadRules) -> Size | str:
    try:
        return header_size(path, rules)
    except UserError as error:
        return str(error).partition("; ")[0]
