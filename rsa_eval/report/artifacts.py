"""Read the plots of records, to embed if safe and to name otherwise."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rsa_pretrain.plumbing.user_paths import real_path

_MAGIC = b"\x89PNG\r\n\x1a\n"
_MOST_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Artifact:
    """One file that belongs to a record."""

    title: str
    path: str
    """Path as recorded."""
    folder: Path
    """Folder of the record, below which it must be."""
    source: str
    """The image as a data URI, or its address; empty if it is not shown."""
    reason: str
    """Reason for not showing it; empty if it is shown."""


def read_artifacts(artifacts: Mapping[str, str], record_folder: Path) -> list[Artifact]:
    """Read the artifacts, embedding PNG files of at most 2 MiB below the record's folder.

    Args:
        artifacts: Title → path relative to the record's folder.
        record_folder: Folder of the record's file.
    """
    return [_read(title, path, real_path(record_folder)) for title, path in artifacts.items()]


def read_picture(path: str, folder: Path) -> tuple[bytes, str]:
    """Return a PNG file's bytes, or the reason for not showing it.

    Args:
        path: Path relative to the folder.
        folder: Folder of the record.
    """
    try:
        return _content(folder / path, folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return b"", f"unreadable: {getattr(error, 'strerror', None) or error}"


def _read(title: str, path: str, folder: Path) -> Artifact:
    content, reason = read_picture(path, folder)
    uri = "" if reason else f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Artifact(title, path, folder, uri, reason)


def _content(path: Path, folder: Path) -> tuple[bytes, str]:
    """Return the file's bytes, or the reason for not embedding them."""
    file = real_path(path)
    if not file.is_relative_to(folder):
        return b"", "outside the record's folder"
    if not file.is_file():
        return b"", "missing"
    if file.suffix != ".png":
        return b"", "not an image; see the file beside the record"
    with file.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        return b"", "larger than 2 MiB"
    if not content.startswith(_MAGIC):
        return b"", "not a PNG file"
    return content, ""
