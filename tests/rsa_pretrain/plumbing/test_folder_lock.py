"""The lock of a run's folder."""

import shutil
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.folder_lock import LOCK_FILE, folder_lock


def test_an_error_in_a_removed_folder_is_not_hidden(tmp_path: Path) -> None:
    """By that of looking whether anything but the lock is left in it."""

    def fail() -> None:
        shutil.rmtree(tmp_path / "run")
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"), folder_lock(tmp_path / "run"):
        fail()


def test_a_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    """Another's files stay, and so does the lock beside them."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").touch()
    for name in ("new", "used"):
        with pytest.raises(UserError, match="refused"), folder_lock(tmp_path / name):
            raise UserError("refused")
    assert not (tmp_path / "new").exists()
    assert {path.name for path in (tmp_path / "used").iterdir()} == {LOCK_FILE, "notes.txt"}
