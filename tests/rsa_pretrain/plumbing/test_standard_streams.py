"""Standard output and error that are closed, cut off or full."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.command_line import run_command, say
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.plumbing.standard_streams import (
    take_output_failure,
    write_error,
    write_output,
)

ROOT = Path(__file__).parents[3]
COMMANDS = {
    "rsa_pretrain": ["config", "digits/rsa"],
    "rsa_eval": ["config", "--evaluator", "knn", "data/digits"],
    "detection": ["toy", "OUT", "--num-train", "2", "--num-test", "1"],
}


@contextmanager
def cut_off() -> Iterator[int]:
    """Yield the end of a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full() -> Iterator[int]:
    """Yield a device without space."""
    with open("/dev/full", "w") as file:
        yield file.fileno()


def run(words: list[str], **streams: object) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m WORDS`` in the checkout."""
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, check=False, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.process
@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize("help_only", [False, True])
def test_a_reader_that_has_left(program: str, help_only: bool, tmp_path: Path) -> None:
    """As in ``… | head -1``: the command completes, and says nothing of it."""
    words = [word.replace("OUT", str(tmp_path / "toy")) for word in COMMANDS[program]]
    with cut_off() as pipe:
        done = run(
            [program, *(["--help"] if help_only else words)], stdout=pipe, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.process
@pytest.mark.parametrize("program", COMMANDS)
def test_a_full_output(program: str, tmp_path: Path) -> None:
    """It is an error of one line that names the stream, at the end of the work."""
    words = [word.replace("OUT", str(tmp_path / "toy")) for word in COMMANDS[program]]
    with full() as device:
        done = run([program, *words], stdout=device, stderr=subprocess.PIPE)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: cannot write to standard output: No space left on device; free")
    assert (tmp_path / "toy").is_dir() == (program == "detection")


@pytest.mark.process
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize(("word", "code"), [("configs", 0), ("flee", 2)])
def test_a_closed_stream(closed: str, word: str, code: int) -> None:
    """Results, errors, or both, are dropped, without a traceback in the other stream."""
    command = f'exec "{sys.executable}" -m rsa_pretrain {word} {closed}'
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    assert (done.stderr != "") == (code == 2 and closed == ">&-")


@pytest.mark.process
def test_a_locale_without_the_characters() -> None:
    """Text that its encoding lacks is printed as escapes."""
    code = "import sys; from rsa_eval.__main__ import main; sys.exit(main(['report', '--help']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"mean \\xb1 sample" in done.stdout


def test_work_is_completed_after_its_reader_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a line nor a progress bar ends a command whose output or messages are cut off."""
    steps = []

    def work() -> int:
        with progress_bar(3, "work", "step") as bar:
            for step in range(3):
                say(f"step {step}")
                bar.update()
                steps.append(step)
        return 0

    for stream in ("stdout", "stderr"):
        with cut_off() as pipe, os.fdopen(os.dup(pipe), "w") as text:
            monkeypatch.setattr(sys, stream, text)
            assert run_command(work) == 0
            monkeypatch.undo()
    assert steps == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(("name", "write"), [("stdout", write_output), ("stderr", write_error)])
def test_a_full_pipe_is_waited_for(
    name: str, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that does not block loses nothing, however long the text and late its reader."""
    texts = ["é" * 150_000, "a line\n" * 50_000, "the end\n"]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found: list[str] = []

    def read() -> None:
        with open(reader, encoding="utf-8") as stream:
            found.append(stream.read())

    late = threading.Timer(0.2, read)
    late.start()
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, name, stream)
        for text in texts:
            write(text)
        failure = take_output_failure()
        monkeypatch.undo()
    late.join()
    assert failure is None
    assert found == ["".join(texts)]
