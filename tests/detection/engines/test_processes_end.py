"""Run training in a separate process with loader processes: however it ends, none survives."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detection.coco.masks import encode_mask
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import write_config
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE

MakeRecipe = Callable[..., Recipe]
OPEN_FILES = 1024
PATIENCE_SECONDS = 240

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc is not there"),
]
engines = pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)


@pytest.fixture
def start(
    make_recipe: MakeRecipe, tmp_path: Path
) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a run with two loader processes in a new session; nothing of it survives."""
    started: list[subprocess.Popen[str]] = []

    def begin(**changes: Any) -> "subprocess.Popen[str]":
        data = {"num_workers": 2, **changes.pop("data", {})}
        training = {"log_every_iterations": 1}
        config = tmp_path / "recipe.yaml"
        write_config(make_recipe(data=data, training=training, **changes), config)
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "detection", "train", str(config), "--random-init"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES)
                ),
            )
        )
        return started[-1]

    yield begin
    for process in started:
        for number in _session(process.pid):
            os.kill(number, signal.SIGKILL)
        process.wait()


@pytest.fixture
def crowded(shapes_folder: Path, tmp_path: Path) -> Path:
    """Annotations of two hundred objects an image, by run-length codes."""
    source = shapes_folder / "annotations" / "instances_train.json"
    tree = json.loads(source.read_text(encoding="utf-8"))
    objects = []
    for image in tree["images"]:
        entry = next(a for a in tree["annotations"] if a["image_id"] == image["id"])
        size = (image["height"], image["width"])
        code = encode_mask(entry["segmentation"], size)
        coded = {"size": list(size), "counts": code["counts"].decode("ascii")}
        objects += [{**entry, "segmentation": coded} for _ in range(200)]
    tree["annotations"] = [{**entry, "id": number} for number, entry in enumerate(objects, 1)]
    annotations = tmp_path / "crowded.json"
    annotations.write_text(json.dumps(tree), encoding="utf-8")
    return annotations


@engines
def test_finished_run_ends(
    start: Callable[..., Any], crowded: Path, tmp_path: Path, engine: str
) -> None:
    """After its record the command ends, and its loader processes with it.

    Images of two hundred run-length codes each pass through as many open files as systems allow.
    """
    process = start(
        engine=engine,
        data={"train_annotations": str(crowded)},
        solver={"batch_size": 6, "reference_batch_size": 6},
    )
    assert _outcome(process) == (0, [])
    assert (tmp_path / "run" / "records" / "detection.json").is_file()


@engines
@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("test", "val")])
def test_run_on_a_broken_image_ends(
    start: Callable[..., Any],
    tmp_path: Path,
    shapes_folder: Path,
    engine: str,
    split: str,
    folder: str,
) -> None:
    """An image that cannot be decoded is one line and exit code 2."""
    images = tmp_path / "images"
    images.mkdir()
    for path in (shapes_folder / folder).iterdir():
        (images / path.name).write_bytes(path.read_bytes()[:200])
    process = start(engine=engine, data={f"{split}_images": str(images)})
    assert _outcome(process) == (2, [])
    assert _error(process).startswith(f"error: image '{images}")


@engines
def test_terminated_run_ends(start: Callable[..., Any], tmp_path: Path, engine: str) -> None:
    """SIGTERM to all of its processes, as clusters send it, saves a checkpoint; exit code 143."""
    process = start(engine=engine, solver={"iterations": 10_000})
    _wait_for_a_step(process, tmp_path / "run")
    os.killpg(process.pid, signal.SIGTERM)
    assert _outcome(process) == (128 + signal.SIGTERM, [])
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@engines
def test_run_that_loses_a_loader_process_ends(
    start: Callable[..., Any], tmp_path: Path, engine: str
) -> None:
    """A loader process killed by the system gives one line and exit code 2."""
    process = start(engine=engine, solver={"iterations": 10_000})
    _wait_for_a_step(process, tmp_path / "run")
    worker = next(number for number in _session(process.pid) if number != process.pid)
    os.kill(worker, signal.SIGKILL)
    assert _outcome(process) == (2, [])
    assert "a loader process ended" in _error(process)


def _wait_for_a_step(process: "subprocess.Popen[str]", run_dir: Path) -> None:
    metrics = run_dir / METRICS_FILE
    end = time.monotonic() + PATIENCE_SECONDS
    while not (metrics.is_file() and metrics.read_text(encoding="utf-8")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "no step was taken"
        time.sleep(0.1)


def _outcome(process: "subprocess.Popen[str]") -> tuple[int, list[int]]:
    """Return the exit code, and which processes of the run are left."""
    process.wait(PATIENCE_SECONDS)
    return process.returncode, _session(process.pid)


def _error(process: "subprocess.Popen[str]") -> str:
    """Return the last line on standard error."""
    assert process.stderr is not None
    return process.stderr.read().strip().splitlines()[-1]


def _session(leader: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        state, session = fields[0], int(fields[3])
        if session == leader and state != "Z":
            found.append(int(folder.name))
    return sorted(found)
