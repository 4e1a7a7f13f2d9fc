"""Files and folders are whole under their name, and killed processes' leftovers vanish."""

import fcntl
import os
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.atomic_files import (
    atomic_file,
    atomic_folder,
    point_link,
    remove_leftovers,
    write_text,
)


def _left_by_a_killed_process(path: Path) -> Path:
    """Write half of a file in a process that dies."""
    if (process := os.fork()) == 0:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            os._exit(9)
    os.waitpid(process, 0)
    (left,) = path.parent.glob(".partial-*")
    return left


def test_the_next_write_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Of any file in the same folder, also in one with a name like a pattern."""
    folder = tmp_path / "[a]*?"
    left = _left_by_a_killed_process(folder / "a.json")
    write_text(folder / "b.json", "other")
    assert not left.exists()
    assert list(folder.iterdir()) == [folder / "b.json"]


def test_leftovers_of_a_living_process_stay(tmp_path: Path) -> None:
    """Its file is locked, and gets its name in the end."""
    path = tmp_path / "a.json"
    left = _left_by_a_killed_process(path)
    with atomic_file(path) as temporary:
        temporary.write_text("mine")
        assert not left.exists()
        write_text(path, "another's")
        remove_leftovers(tmp_path)
        assert path.read_text() == "another's"
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_folder_that_another_takes_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    """Between its making and its lock: the other still has the lock, or has removed it."""
    made: list[Path] = []

    def flock(descriptor: int, operation: int) -> None:
        made.extend(tmp_path.glob(".partial-*"))
        if len(made) == 1 and is_gone:
            made[0].rmdir()
        elif len(made) == 1:
            raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", flock)
    write_text(tmp_path / "a.txt", "whole")
    assert len(set(made)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_without_locks_files_are_written_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system; what is not known to be abandoned stays."""
    left = _left_by_a_killed_process(tmp_path / "a.txt")

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([left, tmp_path / "a.txt"])


@pytest.mark.parametrize("kind", [atomic_file, atomic_folder])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path, kind: object) -> None:
    """Of 255 bytes, and of bytes that are no UTF-8."""
    for name in ("x" * 251 + ".txt", os.fsdecode(b"\xff.txt")):
        with kind(tmp_path / name) as temporary:  # type: ignore[operator]
            target = temporary / "file" if kind is atomic_folder else temporary
            target.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 2


def test_an_error_leaves_the_previous_file_or_folder(tmp_path: Path) -> None:
    """And nothing beside it."""
    write_text(tmp_path / "a.txt", "before")
    with atomic_folder(tmp_path / "b") as temporary:
        (temporary / "c").write_text("before")
    for written in (atomic_file(tmp_path / "a.txt"), atomic_folder(tmp_path / "b")):
        with suppress(KeyError), written as temporary:
            with suppress(IsADirectoryError) if temporary.is_dir() else nullcontext():
                temporary.write_text("half")
            raise KeyError
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b" / "c").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


def test_folders_and_links_replace_what_was_there(tmp_path: Path) -> None:
    """A link also a real folder, as a copy that followed links leaves."""
    for content in ("before", "after"):
        with atomic_folder(tmp_path / "step") as temporary:
            (temporary / content).touch()
    assert [path.name for path in (tmp_path / "step").iterdir()] == ["after"]
    (tmp_path / "last").mkdir()
    for _ in range(2):
        point_link(tmp_path / "last", "step")
        assert os.readlink(tmp_path / "last") == "step"
    assert len(list(tmp_path.iterdir())) == 2


def test_two_processes_may_replace_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one stays, also if the earlier came between its two renames."""
    path = tmp_path / "plots"
    rename, others = Path.rename, iter([True])

    def interrupted(source: Path, target: Path) -> Path:
        if target == path and next(others, False):
            path.mkdir()
            (path / "others").touch()
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with atomic_folder(path) as temporary:
        (temporary / "mine").touch()
    assert [file.name for file in path.iterdir()] == ["mine"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_before_anything_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the system passes, with the previous file in place."""
    write_text(tmp_path / "a.txt", "before")

    def full(**_: object) -> str:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").read_text() == "before"
