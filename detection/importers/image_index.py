"""The images below a folder, found by what annotation files call them."""

import posixpath
from collections import defaultdict
from pathlib import Path

from detection.coco import first_of
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_folder import report_left_out, walk
from rsa_pretrain.sample_suffixes import is_image_suffix


class ImageIndex:
    """The images below a folder; capital and small letters count as the same.

    Args:
        folder: Root.

    Raises:
        UserError: If there is no such folder, or no image in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"there is no folder of images '{folder}'; name it with --images")
        listing = walk(folder)
        report_left_out(folder, listing.left_out)
        self.folder = folder
        self.names = [name for name in listing.names if is_image_suffix(name.lower())]
        if not self.names:
            raise UserError(f"no image below '{folder}'; name their folder with --images")
        self._by_path: dict[str, list[str]] = defaultdict(list)
        self._by_last_part: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            for key in (name.casefold(), without_suffix(name).casefold()):
                self._by_path[key].append(name)
                self._by_last_part[posixpath.basename(key)].append(name)

    def find(self, wanted: str, folder: str) -> str | None:
        """Return the image that a name stands for, with or without its suffix; None if none does.

        Looked for are, in this order, the name relative to the annotation file's folder and to the
        root, the same for its last part alone, and the last part anywhere below the root, if the
        annotation file lies directly in its own.

        Args:
            wanted: Any path, of another machine too.
            folder: Of the annotation file, relative to its root.

        Raises:
            UserError: If it stands for several.
        """
        wanted = wanted.replace("\\", "/")
        last = posixpath.basename(wanted)
        paths = [
            posixpath.normpath(posixpath.join(base, name))
            for name in (wanted, last)
            for base in (folder, "")
        ]
        keys = [path.casefold() for path in paths]
        found = next((self._by_path[key] for key in keys if key in self._by_path), [])
        if not found and not folder:
            found = self._by_last_part.get(last.casefold(), [])
        exact = [name for name in found if name in paths]
        exact = exact or [name for name in found if without_suffix(name) in paths] or found
        if len(exact) > 1:
            raise UserError(
                f"'{wanted}' stands for several images below '{self.folder}': "
                f"{first_of(exact)}; keep one"
            )
        return next(iter(exact), None)


def without_suffix(name: str) -> str:
    """Return a path without the suffix of its last part."""
    return posixpath.splitext(name)[0]
