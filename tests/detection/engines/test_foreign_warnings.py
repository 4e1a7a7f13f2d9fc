"""Commands as a user starts them; their standard error has only this toolkit's messages."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import write_config

NOTE = "average precision counts 120 detections an image and category, where COCO's counts 100"


@pytest.mark.process
@pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)
def test_users_read_no_warnings_to_other_makers(
    make_recipe: Callable[..., Recipe], tmp_path: Path, engine: str
) -> None:
    """Neither training nor prediction shows Python's warnings; the toolkit's own are there."""
    recipe = make_recipe(
        engine=engine,
        data={"num_workers": 1},
        sampling={"detections_per_image": 120},
        solver={"iterations": 2, "decay_at": [], "warmup_iterations": 0},
        training={"precise_bn_iterations": 1, "evaluate_every_iterations": 1},
    )
    config = tmp_path / "recipe.yaml"
    write_config(recipe, config)
    told = _stderr("train", config, "--random-init")
    assert "Warning" not in told
    assert "is_fx_tracing" not in told  # torch logs this one
    assert f"iteration 1: {NOTE}" in told.splitlines()
    data = recipe.data
    notes = tmp_path / "photos" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("no image")
    for image in data.test_images.iterdir():
        (notes.parent / image.name).write_bytes(image.read_bytes())
    told = _stderr("predict", recipe.output_dir, notes.parent, tmp_path / "found.json")
    assert "Warning" not in told
    assert "left out: 1 files of" in told


def _stderr(*words: object) -> str:
    command = [sys.executable, "-m", "detection", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr
