"""Locate images that are not where an annotation file says."""

import os
from collections.abc import Sequence
from pathlib import Path

_FOLDERS_ABOVE = 3
_FOLDERS_BELOW = 50


def missing_images(names: Sequence[str], images_dir: Path) -> list[str]:
    """Return the names that are not those of files in a folder, or of none that can exist."""
    return [name for name in names if not os.path.isfile(images_dir / name)]


def where_images_are(missing: Sequence[str], images_dir: Path, images_key: str | None) -> str:
    """Suggest a setting that finds missing images; empty if none are nearby.

    Searches the folders above and below the image folder, then the folder itself for the names'
    last components: exports keep the paths of another machine.

    Args:
        missing: File names that are not below the folder.
        images_dir: The folder.
        images_key: Name of its setting; None if it cannot be set for images alone.
    """
    if images_key is None:
        return ""
    tidy = [name.replace("\\", "/").lstrip("/") for name in missing]
    counts = {
        folder: sum(os.path.isfile(folder / name) for name in tidy) for folder in _near(images_dir)
    }
    best = max(counts, key=lambda folder: counts[folder], default=None)
    if best is not None and counts[best]:
        first = next(name for name in tidy if os.path.isfile(best / name))
        return (
            f"; {counts[best]:,} of them are found like '{best / first}': "
            f"set {images_key} to '{best}'"
        )
    own = {name.casefold(): name for name in os.listdir(images_dir)} if images_dir.is_dir() else {}
    found = [
        (name, own[last.casefold()])
        for name, last in zip(missing, (os.path.basename(name) for name in tidy), strict=True)
        if last.casefold() in own
    ]
    if not found:
        return ""
    name, last = found[0]
    return (
        f"; {len(found):,} of them are in it under the last part of their names: if these are the "
        f"same images, write file_name relative to the folder, '{last}' in place of '{name}'"
    )


def _near(images_dir: Path) -> list[Path]:
    folder = images_dir.absolute()
    below = (
        sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
        if folder.is_dir()
        else []
    )
    return [*list(folder.parents)[:_FOLDERS_ABOVE], *below[:_FOLDERS_BELOW]]
