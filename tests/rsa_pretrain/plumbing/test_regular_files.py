import os
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.machines import MACHINES_FILE, read_machines
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.plumbing.regular_files import check_regular, is_there, open_regular
from rsa_pretrain.plumbing.text_files import read_text
from rsa_pretrain.plumbing.user_paths import real_path, refuse_input


def _put(path: Path, what: str) -> Path:
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "nothing": "/nowhere"}[what])
    return path


REASONS = {
    "pipe": "is a pipe or a device",
    "device": "is a pipe or a device",
    "folder": "Is a directory",
    "loop": "Too many levels of symbolic links",
    "nothing": "No such file",
}
swaps = pytest.mark.parametrize(("what", "reason"), REASONS.items())


@swaps
def test_only_regular_files_are_opened(tmp_path: Path, what: str, reason: str) -> None:
    """Nothing waits for a pipe or reads an endless device; the error names the file."""
    path = _put(tmp_path / "a.json", what)
    for read in (open_regular, check_regular):
        with pytest.raises(OSError, match=reason) as caught:
            read(path)
        assert caught.value.filename == str(path)
    with pytest.raises(UserError, match=rf"^cannot read record '.*a\.json': {reason}"):
        read_text(path, what="record")
    assert is_there(path)
    assert not is_there(tmp_path / "b.json")


@swaps
def test_what_is_no_file_is_not_taken_for_an_absent_one(
    tmp_path: Path, what: str, reason: str
) -> None:
    """A run whose machines cannot be read does not count as one that recorded none."""
    path = _put(tmp_path / MACHINES_FILE, what)
    with pytest.raises(UserError, match=rf"machines\.json': {reason}"):
        read_machines(tmp_path)
    with pytest.raises(UserError, match=reason):
        read_metrics(path)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"step": ' + "9" * 5000 + "}", '{"a": "\\ud800"}']
)
def test_a_malformed_line_of_metrics_is_named(tmp_path: Path, line: str) -> None:
    """Deep nesting, endless numbers and half characters are no tracebacks."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match="line 1 is not a JSON object with a step"):
        read_metrics(path)


def test_a_loop_of_links_has_a_path(tmp_path: Path) -> None:
    """It is compared with other paths like any file."""
    loop = _put(tmp_path / "loop", "loop")
    assert real_path(loop) == loop
    refuse_input(loop, tmp_path / "other")
    with pytest.raises(UserError, match="is the input file"):
        refuse_input(loop, loop)
