"""Image files under a folder tree: found, checked and read."""

import logging
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from PIL import Image

from rsa_pretrain.errors import UserError
from rsa_pretrain.progress import progress_bar

_log = logging.getLogger(__name__)

# What Pillow's decoders raise on damaged or hostile files.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
_SHOWN = 10


def find_images(
    folder: Path, key: str, on_broken: Literal["error", "skip", "unchecked"]
) -> tuple[list[Path], list[str | None]]:
    """List the images below a folder, in a fixed order, with their class folders.

    Every file counts except hidden ones (their name starts with a dot). Links to folders are
    followed.

    Args:
        folder: Root of the split.
        key: Name of the setting that chose the folder, for errors.
        on_broken: ``error`` decodes every file and refuses if some are no image; ``skip`` leaves
            those out with a counted warning; ``unchecked`` decodes nothing.

    Returns:
        Paths, and for each the name of the first folder below ``folder`` (None directly in it).

    Raises:
        UserError: If there is no folder, no image in it, or (``error``) a broken file.
    """
    if not folder.is_dir():
        raise UserError(
            f"'{folder}' ({key}) is not a folder; expected {folder}/CLASS/IMAGE files, "
            f"or set {key} (`.` takes every image below data.root)"
        )
    files = _walk(folder)
    if on_broken != "unchecked":
        broken = _broken_files(files)
        if broken:
            names = ", ".join(str(path) for path in broken[:_SHOWN])
            if len(broken) > _SHOWN:
                names += f", and {len(broken) - _SHOWN} more"
            if on_broken == "error":
                raise UserError(
                    f"{len(broken)} of {len(files)} files below '{folder}' are no whole image: "
                    f"{names}; remove them or set data.on_broken=skip"
                )
            _log.warning(
                "skipping %d of %d files below '%s' that are no whole image: %s",
                len(broken),
                len(files),
                folder,
                names,
            )
            dropped = set(broken)
            files = [path for path in files if path not in dropped]
    if not files:
        raise UserError(f"no image below '{folder}' ({key})")
    classes = [path.relative_to(folder).parts for path in files]
    return files, [parts[0] if len(parts) > 1 else None for parts in classes]


def read_image(path: Path) -> Image.Image:
    """Decode one file as RGB (EXIF orientation is not applied, as in torchvision).

    Raises:
        UserError: If it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except _DECODE_ERRORS as error:
        raise UserError(
            f"cannot decode '{path}' ({error}); remove it or set data.on_broken=skip"
        ) from None


def _walk(folder: Path) -> list[Path]:
    files: list[Path] = []
    visited: set[str] = set()
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        if real in visited:  # a link back up the tree
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(directory, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _broken_files(files: list[Path]) -> list[Path]:
    # Pillow decodes outside the interpreter lock, so threads are enough.
    with ThreadPoolExecutor() as pool, progress_bar(len(files), "checking images", "img") as bar:
        broken = []
        for path, whole in zip(files, pool.map(_is_whole_image, files), strict=True):
            bar.update()
            if not whole:
                broken.append(path)
    return broken


def _is_whole_image(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            # A JPEG is read to its end but reconstructed at an eighth of its size.
            image.draft("RGB", (1, 1))
            image.load()
    except _DECODE_ERRORS:
        return False
    return True
