"""The bench of faults notices what it is there to notice."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.faults.preload import build, injection, read_calls
from benchmarks.faults.trees import differences, leftovers, torn_files

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler cc")

WRITES = """
import os, sys
os.makedirs("out")
with open("out/a.txt", "w") as file:
    file.write("0123456789" * 100)
os.rename("out/a.txt", "out/b.txt")
os.unlink("out/b.txt")
"""


def _run_with(
    library: Path, folder: Path, number: int, error: int
) -> "subprocess.CompletedProcess[str]":
    folder.mkdir()
    variables = {"LD_PRELOAD": str(library)} | injection(folder, number, error)
    return subprocess.run(
        [sys.executable, "-S", "-c", WRITES],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_compiler
@pytest.mark.process
def test_calls_are_counted_and_fail(tmp_path: Path) -> None:
    """Each by its number: with an error, or with the end of the process in the midst of a write."""
    library = build(tmp_path)
    assert _run_with(library, tmp_path / "whole", 0, 0).returncode == 0
    calls = [call.what.split()[0] for call in read_calls(tmp_path / "whole")]
    assert calls == ["mkdir", "open", "write", "rename", "unlink"]

    full = _run_with(library, tmp_path / "full", 3, 28)
    assert "No space left on device" in full.stderr
    assert (tmp_path / "full" / "out" / "a.txt").stat().st_size == 500
    assert len(read_calls(tmp_path / "full")) >= 3

    killed = _run_with(library, tmp_path / "killed", 3, 0)
    assert killed.returncode == -9
    assert (tmp_path / "killed" / "out" / "a.txt").stat().st_size == 500

    read_only = _run_with(library, tmp_path / "read only", 5, 30)
    assert "Read-only file system" in read_only.stderr
    assert (tmp_path / "read only" / "out" / "b.txt").exists()


CARELESS = """
import sys
from pathlib import Path
from benchmarks.faults import trials
from benchmarks.faults.jobs import Job
from benchmarks.programs import start_server

class Careless(Job):
    def words(self, inputs):
        return ["-c", self.command]

if __name__ == "__main__":
    root = Path(sys.argv[1])
    start_server()
    job = Careless("careless", sys.argv[2])
    trials.run_once(job, root, root / "expected")
    trial = trials.Trial(job, trials.undisturbed, int(sys.argv[3]), int(sys.argv[4]), (-9, 2))
    trials._SECONDS_TO_END = 0.2
    print(trials.try_fault(trial, root, root / "trial", root / "expected" / "out"))
"""
# Writes a file in place, keeps it if it is there, and leaves a process.
PROGRAM = """
import os, time
from pathlib import Path
Path("out").mkdir(exist_ok=True)
if os.fork() == 0:
    time.sleep(60)
if not Path("out/a.json").exists():
    Path("out/a.json").write_text('{"a": [1, 2, 3, 4]}')
if Path("out/.partial-x").exists() or not Path("out/b.txt").exists():
    Path("out/.partial-x").write_text("")
Path("out/b.txt").write_text("b")
Path("out/.partial-x").unlink(missing_ok=True)
"""


@needs_compiler
@pytest.mark.process
def test_a_careless_program_is_found_out(tmp_path: Path) -> None:
    """Its torn file, its loss after the rerun and its orphan."""
    script = tmp_path / "careless.py"
    script.write_text(CARELESS)
    variables = {"LD_PRELOAD": str(build(tmp_path)), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, script, tmp_path, PROGRAM, "3", "0"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torn=['a.json: JSONDecodeError" in done.stdout
    assert "lost=['a.json cannot be read: JSONDecodeError" in done.stdout
    assert "orphans=['" in done.stdout


def _tree(folder: Path) -> Path:
    folder.mkdir()
    weights = {"a": torch.zeros(2), "b": torch.tensor([float("nan")])}
    save_file(weights, folder / "a.safetensors", {"rsa": json.dumps({"created": folder.name})})
    torch.save({"step": 1, "state": [torch.ones(2)]}, folder / "a.pt")
    (folder / "a.jsonl").write_text(json.dumps({"loss": 1.0, "seconds": id(folder)}) + "\n")
    (folder / "a.html").write_text(f"<p>{folder}</p> at 2026-11-30</html>\n")
    (folder / "last").symlink_to("a.pt")
    return folder


def test_equal_trees_differ_in_times_and_places_alone(tmp_path: Path) -> None:
    """Files of every kind."""
    assert differences(_tree(tmp_path / "1"), _tree(tmp_path / "2")) == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("a.safetensors", lambda p: save_file({"a": torch.ones(2)}, p, {"rsa": "{}"})),
        ("a.pt", lambda p: torch.save({"step": 1, "state": [torch.zeros(2)]}, p)),
        ("a.jsonl", lambda p: p.write_text('{"loss": 2.0, "seconds": 1}\n')),
        ("a.html", lambda p: p.write_text("<p>other</p></html>\n")),
        ("last", lambda p: (p.unlink(), p.symlink_to("a.jsonl"))),
        ("a.pt", lambda p: p.unlink()),
        ("new.txt", lambda p: p.write_text("")),
    ],
)
def test_each_difference_is_told(tmp_path: Path, name: str, damage: object) -> None:
    """By the name of the file alone."""
    damage(_tree(tmp_path / "2") / name)  # type: ignore[operator]
    told = differences(_tree(tmp_path / "1"), tmp_path / "2")
    assert told[0].startswith(name)


def test_half_written_files_are_torn_and_temporary_ones_left(tmp_path: Path) -> None:
    """A log's last line may be cut short."""
    folder = _tree(tmp_path / "1")
    for name in ("a.safetensors", "a.pt", "a.html"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    with (folder / "a.jsonl").open("a") as file:
        file.write('{"loss": 1')
    (folder / ".partial-x").mkdir()
    (folder / ".partial-x" / "b.json").write_text("{")
    torn = [line.partition(":")[0] for line in torn_files(folder)]
    assert torn == ["a.html", "a.pt", "a.safetensors", "last"] or torn == [
        "a.html",
        "a.pt",
        "a.safetensors",
    ]
    assert leftovers(folder) == [".partial-x"]
