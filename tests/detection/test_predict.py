import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from narrow import is_narrow
from PIL import Image

from detection.__main__ import main
from detection.commands import predict
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.plumbing.command_line import Parser
from rsa_pretrain.weights.checkpoint import MODEL_FILE, read_tensors, save_tensors

MakeRecipe = Callable[..., Recipe]
SIZE = ["--short-side", "64", "--max-side", "96"]


@pytest.fixture(scope="module")
def trained(
    make_recipe_at: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Recipe]:
    """A function that trains one iteration, evaluated with non-default numbers, once a width."""

    @cache
    def train(narrow: bool) -> Recipe:
        recipe = make_recipe_at(
            tmp_path_factory.mktemp("trained") / "run",
            sampling={"proposals_per_image": 60, "detections_per_image": 40},
            model={"anchor_sizes_pixels": [16, 32, 64, 128, 256]},
            solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0},
        )
        assert run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)[0] == 0
        return recipe

    return train


@pytest.fixture
def run(narrow_detector: None, trained: Callable[[bool], Recipe]) -> Recipe:
    """That run, narrow or of full width like the test."""
    return trained(is_narrow())


def _predict(detector: Path, recipe: Recipe, out: Path, *options: str) -> int:
    data = recipe.data
    files = [detector, data.test_annotations, data.test_images, out]
    return main(["predict", *map(str, files), *options])


@pytest.mark.full_width
def test_detector_finds_the_same_after_a_journey(
    run: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own predictions come from its folder, and from its file converted once and twice.

    Input size, anchors and the numbers of proposals and detections go with the file.
    """
    expected = json.loads((run.output_dir / "predictions.json").read_text())
    assert expected
    assert main(["convert", "--model", str(run.output_dir), str(tmp_path / "there.pth")]) == 0
    back = tmp_path / "back.safetensors"
    assert main(["convert", "--model", str(tmp_path / "there.pth"), str(back)]) == 0
    for detector in (run.output_dir, tmp_path / "there.pth", back):
        assert _predict(detector, run, tmp_path / "found.json") == 0
        assert json.loads((tmp_path / "found.json").read_text()) == expected
    assert f"{len(expected):,} detections on 3 images" in capsys.readouterr().out


def test_mistakes_are_one_error(
    run: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other categories, no detector, or no size: refused, and nothing is written."""
    tree = json.loads(run.data.test_annotations.read_text(encoding="utf-8"))
    tree["categories"].append({"id": 9, "name": "star"})
    other = tmp_path / "other.json"
    other.write_text(json.dumps(tree), encoding="utf-8")
    changed = run.model_copy(
        update={"data": run.data.model_copy(update={"test_annotations": other})}
    )
    out = tmp_path / "found.json"
    assert _predict(run.output_dir, changed, out) == 2
    assert "differ: 3 and 4 ids; only one has 9 ('star')" in capsys.readouterr().err
    tree["categories"] = [{"id": n, "name": name} for n, name in enumerate("abc", 1)]
    other.write_text(json.dumps(tree), encoding="utf-8")
    assert _predict(run.output_dir, changed, out) == 2
    assert "1 is 'circle' and 'a', 2 is 'rectangle' and 'b'" in capsys.readouterr().err
    assert _predict(tmp_path, run, out) == 2
    assert "has no detector: neither model.safetensors" in capsys.readouterr().err
    assert _predict(tmp_path / "nowhere", run, out) == 2
    assert "nowhere' does not exist" in capsys.readouterr().err
    assert _predict(run.output_dir, run, out, "--short-side", "0") == 2
    assert "expected a whole number above 0" in capsys.readouterr().err
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
    assert main(["predict", *words]) == 0
    expected = json.loads((run.output_dir / "predictions.json").read_text())
    assert json.loads(out.read_text()) == expected


@pytest.fixture
def photos(run: Recipe, tmp_path: Path) -> Path:
    """The test images in a separate folder, with files that file browsers leave behind."""
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
        assert main(["predict", *words]) == 0
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
    found = [arguments.detector, *arguments.words, *map(Path, arguments.overrides)]
    assert found == list(map(Path, all_words))


def test_plain_folder_is_drawn_without_judgement(run: Recipe, photos: Path, tmp_path: Path) -> None:
    """The page of a folder's predictions has one panel a photograph, and calls none wrong."""
    out, page = tmp_path / "found.json", tmp_path / "page.html"
    assert main(["predict", str(run.output_dir), str(photos), str(out)]) == 0
    files = ["--annotations", str(tmp_path / "found.images.json"), "--images", str(photos)]
    assert main(["visualize", str(out), str(page), *files, "--min-score", "0"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure") == text.count("<article") > 0
    assert "Without annotations, predictions cannot be judged" in text
    assert "Dashed" not in text


@pytest.mark.parametrize(
    "form",
    [
        "checkpoint",
        pytest.param("converted", marks=pytest.mark.full_width),
        "old run",
        "old file",
    ],
)
def test_categories_go_with_the_file(
    run: Recipe, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """Any file of a detector has its names; an older one takes its run's, or numbers and says so.

    A file given names them all the same.
    """
    detector = run.output_dir / "checkpoints" / "last"
    if form == "converted":
        detector = tmp_path / "there.pth"
        assert main(["convert", "--model", str(run.output_dir), str(detector)]) == 0
    elif form.startswith("old"):
        tensors, metadata = read_tensors(detector / MODEL_FILE)
        shutil.copytree(run.output_dir, tmp_path / "old")
        detector = tmp_path / "old" / "checkpoints" / "last" / MODEL_FILE
        if form == "old file":
            detector = tmp_path / "old.safetensors"
        save_tensors(detector, tensors, metadata)
    out, listed = tmp_path / "found.json", tmp_path / "found.images.json"
    words = ["predict", str(detector), str(photos), str(out)]
    with caplog.at_level("WARNING"):
        assert main(words) == 0
    names = [entry["name"] for entry in json.loads(listed.read_text())["categories"]]
    if form == "old file":
        assert "they are numbered from 1" in caplog.text
        assert names == ["category 1", "category 2", "category 3"]
    else:
        assert "they are numbered from 1" not in caplog.text
        assert names == ["circle", "rectangle", "triangle"]
        expected = json.loads((run.output_dir / "predictions.json").read_text())
        assert json.loads(out.read_text()) == expected

    given = _without(
        run,
        tmp_path / "categories.json",
        categories=[{"id": 30, "name": "c"}, {"id": 10, "name": "a"}, {"id": 20, "name": "b"}],
        annotations=...,
    )
    assert main([*words, "--categories", str(given)]) == 0
    assert [entry["id"] for entry in json.loads(listed.read_text())["categories"]] == [10, 20, 30]
    assert {entry["category_id"] for entry in json.loads(out.read_text())} <= {10, 20, 30}


@pytest.mark.parametrize("form", ["files", "pattern", "file"])
def test_named_images(run: Recipe, photos: Path, tmp_path: Path, form: str) -> None:
    """Single files and patterns are listed by their paths, and their detections are the run's."""
    files = sorted(photos.glob("0*.png"))[: 1 if form == "file" else None]
    words = [str(photos / "0*.png")] if form == "pattern" else list(map(str, files))
    out = tmp_path / "found.json"
    for _ in range(2):  # what it wrote itself it replaces
        assert main(["predict", str(run.output_dir), *words, str(out), "--pictures"]) == 0
    expected = json.loads((run.output_dir / "predictions.json").read_text())
    wanted = [entry for entry in expected if entry["image_id"] <= len(files)]
    assert json.loads(out.read_text()) == wanted
    tree = json.loads((tmp_path / "found.images.json").read_text())
    assert [image["file_name"] for image in tree["images"]] == list(map(str, files))
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert page.count("<article") == len(files)
    files_of = ["--annotations", str(tmp_path / "found.images.json"), "--images", str(photos)]
    assert main(["visualize", str(out), str(tmp_path / "again.html"), *files_of]) == 0


def test_batches_and_workers_find_the_same(run: Recipe, photos: Path, tmp_path: Path) -> None:
    """Images of other sizes are batched apart; detections are those of single images."""
    with Image.open(photos / "000002.png") as image:
        image.crop((0, 0, 64, 40)).save(photos / "000002.png")
    found = []
    for options in ([], ["--batch-size", "2", "--num-workers", "1"]):
        out = tmp_path / "found.json"
        assert main(["predict", str(run.output_dir), str(photos), str(out), *options]) == 0
        found.append(json.loads(out.read_text()))
    alone, batched = found
    assert len(alone) == len(batched) > 10
    for one, other in zip(alone, batched, strict=True):
        assert one["image_id"] == other["image_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


def test_mistakes_with_folders(
    run: Recipe, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one error line that says what was found, and nothing is written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.json").mkdir()
    other = _without(
        run,
        tmp_path / "two.json",
        annotations=...,
        categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    )
    (tmp_path / "page.html").write_text("<html>", encoding="utf-8")
    mine = tmp_path / "mine.images.json"
    mine.write_text("{}", encoding="utf-8")
    detector, out = str(run.output_dir), str(tmp_path / "found.json")
    for words, message in (
        ([out], "is not an OUT.json; expected DETECTOR IMAGES OUT.json"),
        ([str(photos), str(photos / "000001.png")], "000001.png' is not an OUT.json"),
        ([str(tmp_path / "*.jpg"), out], "*.jpg' does not exist"),
        ([str(photos), str(photos / "000001.png"), out], "is a folder; expected a single folder"),
        ([str(photos / "notes.txt"), out], "1 of 1 files are not images"),
        (
            [str(run.data.test_annotations), str(photos), "b", out],
            "is followed by 2 paths; expected",
        ),
        ([str(tmp_path / "empty"), out], "(0 other files); expected files"),
        ([str(photos), out, "--categories", str(other)], "has 3 categories, "),
        ([str(photos), str(tmp_path / "mine.json")], "exists and was not written by this command"),
        ([str(photos), str(tmp_path / "folder.json")], "folder.json' is a folder; name a file"),
        ([str(other), str(photos), str(other)], "two.json' is an input and would be overwritten"),
        (
            [str(photos), str(run.data.test_annotations)],
            "exists and was not written by this command",
        ),
        ([str(photos), str(tmp_path / "page.json"), "--pictures"], "page.html' exists and was not"),
        (
            [str(photos), out, "--num-workers", "-1"],
            "expected a whole number of 0 or more, found '-1'",
        ),
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
    assert "'rsa-detect predict' accepts such a file" in error
