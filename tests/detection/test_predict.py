import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from detection.__main__ import main
from detection.commands import predict
from detection.recipe import Recipe
from detection.run import run_recipe
from detection.trunk import random_trunk
from rsa_pretrain.command_line import Parser

MakeRecipe = Callable[..., Recipe]
SIZE = ["--short-side", "64", "--max-side", "64"]


@pytest.fixture(scope="module")
def run(make_recipe_at: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run of one iteration, evaluated with the recipe's default numbers."""
    recipe = make_recipe_at(
        tmp_path_factory.mktemp("trained") / "run",
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
    expected = json.loads((run.output_dir / "predictions.json").read_text())
    assert expected
    assert main(["convert", "--model", str(run.output_dir), str(tmp_path / "there.pth")]) == 0
    back = tmp_path / "back.safetensors"
    assert main(["convert", "--model", str(tmp_path / "there.pth"), str(back)]) == 0
    for detector in (run.output_dir, back):
        assert _predict(detector, run, tmp_path / "found.json", *SIZE) == 0
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


def _without(recipe: Recipe, path: Path, **replaced: object) -> Path:
    """Write the test annotations with some keys replaced, or dropped where the value is ``...``."""
    tree = json.loads(recipe.data.test_annotations.read_text(encoding="utf-8")) | replaced
    kept = {key: value for key, value in tree.items() if value is not ...}
    path.write_text(json.dumps(kept), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "replaced",
    [
        {"annotations": ...},
        {"annotations": None},
        {"annotations": ..., "categories": ...},
        {"annotations": ..., "categories": []},
    ],
)
def test_images_without_annotations(
    run: Recipe, tmp_path: Path, replaced: dict[str, object]
) -> None:
    """A file of images alone gives the run's own predictions; categories come from its record."""
    images = _without(run, tmp_path / "image_info.json", **replaced)
    out = tmp_path / "found.json"
    words = [str(run.output_dir), str(images), str(run.data.test_images), str(out)]
    assert main(["predict", *words, *SIZE]) == 0
    expected = json.loads((run.output_dir / "predictions.json").read_text())
    assert json.loads(out.read_text()) == expected


@pytest.fixture
def photos(run: Recipe, tmp_path: Path) -> Path:
    """The test images in a folder of their own, with what file browsers leave beside them."""
    folder = tmp_path / "photos"
    shutil.copytree(run.data.test_images, folder)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(b"no image")
    (folder / "__MACOSX").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "__MACOSX" / "fork.png")
    return folder


def test_plain_folder(
    run: Recipe,
    photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Photographs are numbered in their names' order, and listed; other files are left out.

    The drawn images' ids are their places, so the predictions are the run's.
    """
    out = tmp_path / "found.json"
    words = [str(run.output_dir), str(photos), str(out)]
    with caplog.at_level("WARNING"):
        assert main(["predict", *words, *SIZE]) == 0
    assert json.loads(out.read_text()) == json.loads(
        (run.output_dir / "predictions.json").read_text()
    )
    assert "left out: 1 files of" in caplog.text
    assert "notes.txt" in caplog.text
    listed = tmp_path / "found.images.json"
    assert f"images and categories by id in {listed}" in capsys.readouterr().out
    tree = json.loads(listed.read_text(encoding="utf-8"))
    assert [(image["id"], image["file_name"]) for image in tree["images"]] == [
        (number, f"{number:06d}.png") for number in (1, 2, 3)
    ]
    assert [entry["name"] for entry in tree["categories"]] == ["circle", "rectangle", "triangle"]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("words", [["set.json", "images", "out"], ["images", "out"]])
def test_options_stand_anywhere(words: list[str], place: int) -> None:
    """The words are told by their order alone, wherever options stand between them."""
    parser = Parser()
    predict.add(parser.add_subparsers())
    all_words = ["run", *words]
    arguments = parser.parse_args(["predict", *all_words[:place], *SIZE, *all_words[place:]])
    assert [arguments.detector, arguments.first, arguments.second] == list(map(Path, all_words[:3]))
    assert arguments.overrides == all_words[3:]


def test_plain_folder_is_drawn_without_judgement(run: Recipe, photos: Path, tmp_path: Path) -> None:
    """The page of a folder's predictions has one panel a photograph, and calls none wrong."""
    out, page = tmp_path / "found.json", tmp_path / "page.html"
    assert main(["predict", str(run.output_dir), str(photos), str(out), *SIZE]) == 0
    files = ["--annotations", str(tmp_path / "found.images.json"), "--images", str(photos)]
    assert main(["visualize", str(out), str(page), *files, "--min-score", "0"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure") == text.count("<article") > 0
    assert "whether a prediction is right is not known" in text
    assert "Dashed" not in text


def test_categories_of_a_file_alone(
    run: Recipe, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A detector's file has no names: labels are numbered, and said so, or a file names them."""
    detector = run.output_dir / "checkpoints" / "last"
    out, listed = tmp_path / "found.json", tmp_path / "found.images.json"
    words = ["predict", str(detector), str(photos), str(out), *SIZE]
    with caplog.at_level("WARNING"):
        assert main(words) == 0
    assert "they are numbered from 1" in caplog.text
    names = [entry["name"] for entry in json.loads(listed.read_text())["categories"]]
    assert names == ["category 1", "category 2", "category 3"]

    given = _without(
        run,
        tmp_path / "categories.json",
        categories=[{"id": 30, "name": "c"}, {"id": 10, "name": "a"}, {"id": 20, "name": "b"}],
        annotations=...,
    )
    assert main([*words, "--categories", str(given)]) == 0
    assert [entry["id"] for entry in json.loads(listed.read_text())["categories"]] == [10, 20, 30]
    assert {entry["category_id"] for entry in json.loads(out.read_text())} <= {10, 20, 30}


def test_mistakes_with_folders(
    run: Recipe, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one error line that says what was found, and nothing is written."""
    (tmp_path / "empty").mkdir()
    other = _without(
        run,
        tmp_path / "two.json",
        annotations=...,
        categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    )
    mine = tmp_path / "mine.images.json"
    mine.write_text("{}", encoding="utf-8")
    detector, out = str(run.output_dir), str(tmp_path / "found.json")
    for words, message in (
        ([str(run.data.test_annotations), out], "is no folder of images; expected"),
        ([str(tmp_path / "empty"), out], "no image below"),
        ([str(photos), out, "--categories", str(other)], "knows 3 categories, "),
        ([str(photos), str(tmp_path / "mine.json")], "is another file, not one written here"),
        ([str(photos), "a", "b", "c"], "unrecognised argument: c"),
    ):
        assert main(["predict", detector, *words]) == 2
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert message in line
    assert not list(tmp_path.glob("found*"))
    assert mine.read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("command", ["train", "evaluate", "data-check"])
def test_what_needs_annotations_says_so(
    run: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Training, evaluation and their check refuse a file of images alone, and name predict."""
    images = _without(run, tmp_path / "image_info.json", annotations=...)
    config = str(run.output_dir / "config.yaml")
    words = {
        "train": [config, "--random-init", f"data.train_annotations={images}", "--resume"],
        "evaluate": [str(images), str(run.output_dir / "predictions.json")],
        "data-check": [str(images), "--images", str(run.data.test_images)],
    }
    assert main([command, *words[command]]) == 2
    error = capsys.readouterr().err
    assert f"'{images}' lists images without annotations" in error
    assert "'rsa-detect predict' takes such a file" in error
