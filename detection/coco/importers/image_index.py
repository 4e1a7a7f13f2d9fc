"""Find images below a folder by the paths in annotation files."""

import posixpath
from collections import defaultdict
from pathlib import Path

from rsa_pretrain.data.image_folder import report_left_out, walk
from rsa_pretrain.data.shards.suffixes import is_image_suffix
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


class ImageIndex:
    """The images below a folder.

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
        self._by_key: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            for key in (name, without_suffix(name)):
                self._by_key[key.casefold()].append(name)

    def find(self, path: str) -> str | None:
        """Return the image that matches the longest possible end of a path.

        The path may lack the suffix or differ in case, as Windows allows.

        Args:
            path: With forward slashes; may be from another machine or folder.

        Raises:
            UserError: If it matches several images.
        """
        parts = posixpath.normpath(path).split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            found = self._by_key.get(end.casefold())
            if found is not None:
                exact = [name for name in found if name == end]
                exact = exact or [name for name in found if without_suffix(name) == end] or found
                if len(exact) > 1:
                    raise UserError(
                        f"'{path}' matches several images below '{self.folder}': "
                        f"{first_of(exact)}; keep one"
                    )
                return exact[0]
        return None


def without_suffix(name: str) -> str:
    """Return a path without the suffix of its last part."""
    return posixpath.splitext(name)[0]
