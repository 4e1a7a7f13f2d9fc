"""Test that text files are read whole, or refused."""

import os
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_files import read_text


@pytest.mark.parametrize("content", [b"a\r\n\xc3\xa9\n", b"\xef\xbb\xbfa\n\xc3\xa9\n"])
def test_text_is_without_its_mark_and_line_ends(content: bytes, tmp_path: Path) -> None:
    """A byte order mark is dropped, line ends are unified."""
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read_text(path) == "a\n\u00e9\n"


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """Other encodings, folders, and files that do not fit into memory."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"cannot read '.*a\.txt': it is not UTF-8 text$"):
        read_text(path)
    with pytest.raises(UserError, match=r"cannot read '.*': Is a directory$"):
        read_text(tmp_path)
    os.truncate(path, 2**20 + 1)
    with pytest.raises(UserError, match=r"cannot read '.*a\.txt': it is larger than 1 MiB$"):
        read_text(path, 1)
    path.write_bytes(b" " * 2**20)
    assert len(read_text(path, 1)) == 2**20
