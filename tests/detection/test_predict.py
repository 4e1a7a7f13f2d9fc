import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detection.__main__ import main
from detection.recipe import Recipe
from detection.run import run_recipe
from detection.trunk import random_trunk

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def run(make_recipe: MakeRecipe) -> Recipe:
    """A run of one iteration, evaluated with the recipe's default numbers."""
    recipe = make_recipe(
        sampling={"proposals_per_image": 1000, "detections_per_image": 100},
        solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0},
    )
    assert run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)[0] == 0
    return recipe


def _predict(detector: Path, recipe: Recipe, out: Path, *options: str) -> int:
    data = recipe.data
    files = [detector, data.test_annotations, data.test_images, out]
    return main(["predict", *map(str, files), *options])


def test_detector_finds_the_same_after_a_journey(
    run: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own predictions come from its folder, and from its file converted twice."""
    size = ["--short-side", "64", "--max-side", "64"]
    expected = json.loads((run.output_dir / "predictions.json").read_text())
    assert expected
    assert main(["convert", "--model", str(run.output_dir), str(tmp_path / "there.pth")]) == 0
    back = tmp_path / "back.safetensors"
    assert main(["convert", "--model", str(tmp_path / "there.pth"), str(back)]) == 0
    for detector in (run.output_dir, back):
        assert _predict(detector, run, tmp_path / "found.json", *size) == 0
        assert json.loads((tmp_path / "found.json").read_text()) == expected
    assert f"{len(expected):,} detections on 3 images" in capsys.readouterr().out


def test_mistakes_are_one_error(
    run: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another number of categories, no detector, or no size: refused, and nothing is written."""
    tree = json.loads(run.data.test_annotations.read_text(encoding="utf-8"))
    tree["categories"].append({"id": 9, "name": "star"})
    other = tmp_path / "other.json"
    other.write_text(json.dumps(tree), encoding="utf-8")
    changed = run.model_copy(
        update={"data": run.data.model_copy(update={"test_annotations": other})}
    )
    out = tmp_path / "found.json"
    assert _predict(run.output_dir, changed, out) == 2
    assert "knows 3 categories" in capsys.readouterr().err
    assert _predict(tmp_path, run, out) == 2
    assert "holds no model.safetensors" in capsys.readouterr().err
    assert _predict(run.output_dir, run, out, "--short-side", "0") == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert not out.exists()
