"""Test ``rsa-detect init``: annotated images give a config that the next commands accept."""

import copy
import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from detection.__main__ import main
from detection.coco.sets import open_coco
from detection.coco.shapes import ShapesConfig, write_shapes
from detection.exchange.config import config_tree
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.survey.data_check import check_set
from detection.survey.limit_checks import limits_of
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.weights.checkpoint import LoadedBackbone

Tree = dict[str, Any]
Change = Callable[[Tree], None]

SHORT = (
    "data.num_workers=0",
    "solver.iterations=2",
    "solver.decay_at=[]",
    "solver.warmup_iterations=0",
    "training.precise_bn_iterations=1",
    "sampling.proposals_per_image=20",
    "sampling.rois_per_image=8",
    "sampling.detections_per_image=5",
)


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of 64 px in photos/, and their annotations in own.json."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    write_shapes(folder, ShapesConfig(num_train=10, num_test=1, image_size=64, seed=1))
    (folder / "train").rename(folder / "photos")
    (folder / "annotations" / "instances_train.json").rename(folder / "own.json")
    return folder


@pytest.fixture
def home(drawn_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in, with photos/ and own.json."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(drawn_set / "photos")
    (tmp_path / "own.json").write_bytes((drawn_set / "own.json").read_bytes())
    return tmp_path


def _change(change: Change) -> None:
    """Change own.json."""
    path = Path("own.json")
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")


def _init(words: str = "own.json photos") -> None:
    assert main(["init", *shlex.split(words)]) == 0


def _recipe(path: str = "own.yaml") -> Recipe:
    return load_config(Recipe, Path(path))


def _printed_commands(output: str) -> list[list[str]]:
    """Return the words of each command that is printed as the next."""
    _, _, commands = output.partition("next:\n")
    words = [shlex.split(line) for line in commands.splitlines()]
    assert [line[0] for line in words] == ["rsa-detect"] * 3
    return [line[1:] for line in words]


def _box_alone(tree: Tree) -> None:
    for entry in tree["annotations"]:
        del entry["segmentation"]


def _one_sparse_category(tree: Tree) -> None:
    tree["categories"] = [{"id": 77, "name": "shape"}]
    for entry in tree["annotations"]:
        entry["category_id"] = 77


def test_printed_commands_run_as_they_are(
    drawn_set: Path,
    write_checkpoint: Callable[..., LoadedBackbone],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also with blanks and other scripts in paths, and a config in another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own data").mkdir()
    (tmp_path / "own data" / "Größe 数据").symlink_to(drawn_set / "photos")
    (tmp_path / "own data" / "a 'b' (1).json").write_bytes((drawn_set / "own.json").read_bytes())
    out = "configs/new/Boote ä.yaml"
    words = ["own data/a 'b' (1).json", "own data/Größe 数据", out, "--max-megapixels", "0.5"]
    assert main(["init", *words]) == 0
    check, train, predict = _printed_commands(capsys.readouterr().out)
    text = Path(out).read_text(encoding="utf-8")
    for command in (check, train, predict):
        assert f"#   {shlex.join(['rsa-detect', *command])}\n" in text

    assert main(check) == 0
    checkpoint = str(write_checkpoint().path)
    train = [checkpoint if word == "CHECKPOINT" else word for word in train]
    assert main([*train, *SHORT]) == 0
    assert main(predict) == 0
    found = json.loads(Path("configs/new/Boote ä_found.json").read_text(encoding="utf-8"))
    assert {entry["image_id"] for entry in found} <= set(range(1, 11))
    assert Path("configs/new/Boote ä_found.html").is_file()
    record = json.loads(Path("runs/detection/Boote ä/records/detection.json").read_text())
    assert {"bbox_AP", "segm_AP"} <= record["metrics"].keys()
    assert record["num_samples"] == 2
    assert _recipe(out).data.max_megapixels == 0.5


def test_boxes_of_one_category_train_from_random_weights(home: Path) -> None:
    """The baseline's words of the config's header; a category id far from 1 comes back."""
    _change(_box_alone)
    _change(_one_sparse_category)
    _init()
    assert not _recipe().model.mask_head
    text = " ".join(Path("own.yaml").read_text(encoding="utf-8").replace("# ", "").split())
    (words,) = re.findall(r"'(--random-init [^']*)'", text)
    assert main(["train", "own.yaml", *shlex.split(words), *SHORT]) == 0
    run = home / "runs" / "detection" / "own"
    record = json.loads((run / "records" / "detection.json").read_text(encoding="utf-8"))
    assert {name.partition("_")[0] for name in record["metrics"]} == {"bbox"}
    found = json.loads((run / "predictions.json").read_text(encoding="utf-8"))
    assert {entry["category_id"] for entry in found} == {77}


@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
@pytest.mark.parametrize("change", [None, _box_alone])
def test_either_engine_takes_the_config(home: Path, engine: str, change: Change | None) -> None:
    """It loads, and detectron2's own config can be made of it."""
    if change is not None:
        _change(change)
    _init(f"own.json photos --engine {engine} --seed 5")
    recipe = _recipe()
    assert (recipe.engine, recipe.seed) == (engine, 5)
    model = recipe.model.model_copy(update={"arch": "resnet50"})
    tree = config_tree(recipe, random_trunk(model, 0), 3, "polygon")
    assert tree["MODEL"]["MASK_ON"] == (change is None)
    assert tree["SOLVER"]["MAX_ITER"] == recipe.solver.iterations == 2000


def test_split_is_written_and_repeatable(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each image is in one part; the same words write the same bytes over what they wrote."""
    _change(_one_sparse_category)
    _init("own.json photos --split 0.3")
    assert "7 training images" in capsys.readouterr().out
    parts = [Path(f"own_{part}.json") for part in ("train", "test")]
    ids = [{image["id"] for image in json.loads(part.read_text())["images"]} for part in parts]
    assert [len(part) for part in ids] == [7, 3]
    assert ids[0] | ids[1] == set(range(1, 11))
    written = [path.read_bytes() for path in (Path("own.yaml"), *parts)]
    _init("own.json photos --split 0.3")
    assert [path.read_bytes() for path in (Path("own.yaml"), *parts)] == written
    assert sorted(path.name for path in home.iterdir()) == [
        "own.json",
        "own.yaml",
        "own_test.json",
        "own_train.json",
        "photos",
    ]


def test_own_test_set(home: Path, drawn_set: Path) -> None:
    """Nothing is split; epochs are counted over all training images."""
    annotations = drawn_set / "annotations" / "instances_val.json"
    _init(
        f"own.json photos new.yaml --test {annotations} --test-images {drawn_set / 'val'} "
        "--epochs 6"
    )
    recipe = _recipe("new.yaml")
    assert recipe.data.train_annotations == Path("own.json")
    assert recipe.data.test_annotations == annotations
    assert recipe.data.test_images == drawn_set / "val"
    assert recipe.solver.iterations == 15  # 6 epochs of 10 images, 4 a batch
    assert not list(home.glob("*_t*.json"))
    assert main(["data-check", "new.yaml"]) == 0


def test_one_training_image(home: Path) -> None:
    """With a test set it is enough, and makes batches of one."""

    def keep_first(tree: Tree) -> None:
        tree["images"] = tree["images"][:1]
        first = tree["images"][0]["id"]
        tree["annotations"] = [e for e in tree["annotations"] if e["image_id"] == first]

    (home / "all.json").write_bytes((home / "own.json").read_bytes())
    _change(keep_first)
    _init("own.json photos --test all.json")
    assert _recipe().solver.batch_size == 1
    assert main(["data-check", "own.yaml"]) == 0


def test_images_without_annotations_are_background(home: Path) -> None:
    """The config keeps them, and data-check counts them as trained on."""

    def clear_two(tree: Tree) -> None:
        tree["annotations"] = [e for e in tree["annotations"] if e["image_id"] > 2]

    _change(clear_two)
    _init("own.json photos --split 0.5")
    data = _recipe().data
    assert data.keep_empty_images
    check = check_set(data.train_annotations, data.train_images, "train", keep_empty=True)
    assert len(check.notes["images without annotations"]) == 1


def test_every_kind_of_image(home: Path) -> None:
    """RGBA, 16 bit, palette and CMYK are measured, checked and left where they are."""
    (home / "photos").unlink()
    (home / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 2**16, (48, 64), dtype=np.uint16)
    gray = Image.fromarray((pixels // 256).astype(np.uint8))
    images = {
        "deep.png": Image.fromarray(pixels),
        "deep.tiff": Image.fromarray(pixels),
        "alpha.png": gray.convert("RGBA"),
        "palette.png": gray.convert("P"),
        "inks.jpg": gray.convert("CMYK"),
        "lines.bmp": gray.convert("1"),
    }
    for name, image in images.items():
        image.save(home / "photos" / name)

    def name_them(tree: Tree) -> None:
        tree["images"] = [
            {"id": number, "file_name": name, "width": 64, "height": 48}
            for number, name in enumerate(images, start=1)
        ]
        tree["annotations"] = [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [8, 8, 20, 30]}
            for n in range(1, len(images) + 1)
        ]

    _change(name_them)
    _init("own.json photos --split 0.4")
    assert main(["data-check", "own.yaml"]) == 0


def test_turned_images(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes annotated as stored are refused, unless the config shall read the images so."""
    (home / "photos").unlink()
    (home / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(1, 11):
        Image.new("RGB", (64, 48)).save(home / "photos" / f"{number:06d}.jpg", exif=exif)

    def as_stored(tree: Tree) -> None:
        for image in tree["images"]:
            image.update(file_name=f"{image['id']:06d}.jpg", width=64, height=48)

    _change(as_stored)
    assert main(["init", "own.json", "photos"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "10 of 10 images of 'own.json' differ in size from the annotations" in error
    assert "000001.jpg (is 48x64, annotated 64x48)" in error
    assert "--as-stored" in error
    assert not (home / "own.yaml").exists()
    _init("own.json photos --as-stored")
    assert not _recipe().data.exif_orientation
    assert main(["data-check", "own.yaml"]) == 0


def test_imported_annotations(home: Path) -> None:
    """The output of import-annotations is accepted without notes."""
    (home / "labels").mkdir()
    for number in range(1, 11):
        (home / "labels" / f"{number:06d}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (home / "yolo").mkdir()
    (home / "labels").rename(home / "yolo" / "labels")
    (home / "photos").rename(home / "yolo" / "images")
    (home / "yolo" / "classes.txt").write_text("käse\n", encoding="utf-8")
    assert main(["import-annotations", "yolo", "imported.json"]) == 0
    _init("imported.json yolo/images")
    assert "categories (1): käse." in Path("imported.yaml").read_text(encoding="utf-8")
    assert main(["data-check", "imported.yaml"]) == 0


def _crowd(tree: Tree) -> None:
    places = [[4 * column, 4 * row, 3, 3] for column in range(16) for row in range(16)]
    ids = itertools.count(1)
    tree["annotations"] = [
        {"id": next(ids), "image_id": image["id"], "category_id": 1, "bbox": place}
        for image in tree["images"]
        for place in places
    ]


def test_fitted_limits_satisfy_data_check(home: Path) -> None:
    """256 objects of 3 pixels an image: too many and too small for COCO's recipe, not for this."""
    _change(_crowd)
    _init()
    recipe = _recipe()
    paths = (recipe.data.train_annotations, recipe.data.train_images)
    usual = limits_of("train", recipe.input)
    fitted = limits_of("train", recipe.input, recipe.sampling, recipe.model.anchor_sizes_pixels)
    found = [
        [line for line in check_set(*paths, "train", limits=limits).notes if "objects" in line]
        for limits in (usual, fitted)
    ]
    assert [len(lines) for lines in found] == [2, 0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.yaml", "name: mine\n"),
        ("own_train.json", '{"images": []}'),
        ("own_test.json", ""),
    ],
)
def test_others_files_stay(
    home: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the three is somebody else's, nothing is written."""
    (home / name).write_text(content, encoding="utf-8")
    before = sorted(home.iterdir())
    assert main(["init", "own.json", "photos"]) == 2
    assert f"error: '{name}' exists and was not written by this command" in capsys.readouterr().err
    assert (home / name).read_text(encoding="utf-8") == content
    assert sorted(home.iterdir()) == before


def test_folder_in_the_place_of_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused before anything is written."""
    (home / "own_test.json").mkdir()
    before = sorted(home.iterdir())
    assert main(["init", "own.json", "photos"]) == 2
    assert "error: 'own_test.json' is a folder; name a file in it" in capsys.readouterr().err
    assert sorted(home.iterdir()) == before


def test_data_is_not_written_over(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that is split again does not overwrite itself."""
    _init()
    before = (home / "own_train.json").read_bytes()
    assert main(["init", "./own_train.json", "photos", "own.yaml"]) == 2
    assert "is an input and would be overwritten" in capsys.readouterr().err
    assert (home / "own_train.json").read_bytes() == before
    _init("own_train.json photos half.yaml --split 0.5")
    assert len(open_coco(Path("half_test.json"), Path("photos")).images) == 4


def _repeat(tree: Tree) -> None:
    again = copy.deepcopy(tree["annotations"])
    for number, entry in enumerate(again, start=1000):
        entry["id"] = number
    tree["annotations"] += again


def _misplace(tree: Tree) -> None:
    entry = tree["annotations"][0]
    x, y = entry["bbox"][:2]
    entry["bbox"] = [0, 0, 4, 4] if x > 4 and y > 4 else [60, 60, 4, 4]


def _rare_categories(tree: Tree) -> None:
    """Two images of each of four categories, and one of a fifth."""
    tree["images"] = tree["images"][:9]
    numbers = [1, 1, 2, 2, 3, 3, 4, 4, 5]
    tree["categories"] = [{"id": number, "name": f"kind\n{number}"} for number in range(1, 6)]
    tree["annotations"] = [
        {"id": image_id, "image_id": image_id, "category_id": number, "bbox": [5, 5, 40, 40]}
        for image_id, number in enumerate(numbers, start=1)
    ]


def _many_tiny(tree: Tree) -> None:
    for entry in tree["annotations"]:
        entry.update(bbox=[*entry["bbox"][:2], 1.5, 1.5], segmentation=[])


@pytest.mark.parametrize(
    ("change", "expected", "exit_code"),
    [
        (
            _repeat,
            ["duplicates of an earlier annotation, with the same category, box and mask (25): "],
            1,
        ),
        (_misplace, ["boxes off their masks, sharing less than half of the smaller "], 1),
        (
            _rare_categories,
            [
                "the test part has 4 of 9 images, more than a share of 0.2, so that it has every ",
                r"categories in training only, which are not evaluated (1): kind\n5 (on 1)",
            ],
            0,
        ),
        (_many_tiny, ["100 % of the objects enter the network smaller than 8 pixels and will "], 0),
    ],
)
def test_notes(
    home: Path,
    change: Change,
    expected: list[str],
    exit_code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Doubtful data that the config is fitted to are reported; data-check agrees."""
    _change(change)
    _init()
    lines = capsys.readouterr().out.splitlines()
    notes = [line for line in lines if line.startswith("note ")]
    assert len(notes) == len(expected)
    for note, start in zip(notes, expected, strict=True):
        assert note.startswith(f"note     {start}")
        assert note.endswith("; correct them and run init again") == bool(exit_code)
    assert main(["data-check", "own.yaml"]) == exit_code


def _fractions(tree: Tree) -> None:
    for entry in tree["annotations"]:
        entry["bbox"] = [value / 64 for value in entry["bbox"]]


def _corners(tree: Tree) -> None:
    for entry in tree["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]


def _crowds(tree: Tree) -> None:
    for entry in tree["annotations"]:
        entry["iscrowd"] = 1


def _own_categories(tree: Tree) -> None:
    tree["images"] = tree["images"][:3]
    tree["categories"] = [{"id": n, "name": f"kind {n}"} for n in (1, 2, 3)]
    tree["annotations"] = [
        {"id": n, "image_id": n, "category_id": n, "bbox": [5, 5, 9, 9]} for n in (1, 2, 3)
    ]


def _rename_category(tree: Tree) -> None:
    tree["categories"][0]["name"] = "square"


def _lose_images(tree: Tree) -> None:
    for image in tree["images"]:
        image["file_name"] = f"absent/{image['id']}.jpg"


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        ("absent.json photos", None, "cannot read annotations 'absent.json'"),
        ("own.json absent", None, "10 of 10 images of 'own.json' are not in 'absent'"),
        ("own.json photos own.json", None, "'own.json' should end in .yaml"),
        ("own.json photos --split 0", None, "expected a share above 0 and below 1, found '0'"),
        ("own.json photos --split 1", None, "above 0 and below 1, found '1'"),
        ("own.json photos --split nan", None, "above 0 and below 1, found 'nan'"),
        ("own.json photos --split many", None, "above 0 and below 1, found 'many'"),
        ("own.json photos --epochs 0", None, "expected a whole number above 0, found '0'"),
        ("own.json photos --seed -1", None, "'seed'"),
        ("own.json photos --engine mine", None, "invalid choice: 'mine'"),
        ("own.json photos --test-images photos", None, "--test-images needs --test"),
        ("own.json photos --split 0.2 --test own.json", None, "not allowed with argument"),
        ("own.json photos --max-megapixels 0.001", None, "megapixels"),
        ("own.json photos", lambda tree: tree["images"].clear(), "'own.json' lists no images"),
        ("own.json photos", lambda tree: tree["annotations"].clear(), "objects on 0 of 10 images"),
        ("own.json photos", lambda tree: tree.pop("annotations"), "no list 'annotations'"),
        ("own.json photos", _crowds, "objects on 0 of 10 images"),
        ("own.json photos", _own_categories, "each of the 3 images with objects is the only one"),
        ("own.json photos", _fractions, "in fractions of the image"),
        ("own.json photos", _corners, "seems to be [x0, y0, x1, y1]"),
        ("own.json photos", _lose_images, "10 of 10 images of 'own.json' are not in 'photos'"),
        ("first.json photos --test own.json", _rename_category, "1 is 'circle' and 'square'"),
        ("first.json photos --test own.json", _crowds, "has no object; average precision"),
    ],
)
def test_mistakes_are_one_line(
    home: Path,
    words: str,
    change: Change | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, one line that begins with error, and nothing written."""
    (home / "first.json").write_bytes((home / "own.json").read_bytes())
    if change is not None:
        _change(change)
    before = {path: path.stat().st_mtime_ns for path in home.iterdir()}
    assert main(["init", *shlex.split(words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert {path: path.stat().st_mtime_ns for path in home.iterdir()} == before


@pytest.fixture
def voc_config(voc_folder: Path, home: Path) -> Path:
    """A config of VOC's folders, without a model."""
    data = {
        "name": "own",
        "format": "voc",
        "root": str(voc_folder),
        "train": ["2007/trainval"],
        "test": ["2012/test"],
        "max_megapixels": 1.0,
    }
    text = yaml.safe_dump({"base": str(voc_folder / "classes.yaml"), "data": data})
    (home / "own.yaml").write_text(text, encoding="utf-8")
    return home / "own.yaml"


@pytest.mark.usefixtures("voc_config")
def test_a_config_s_sets_are_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    """Of VOC's folders, which have boxes alone; nothing is split, and its own settings stay."""
    assert main(["init", "own.yaml", "fitted.yaml", "--max-megapixels", "2"]) == 0
    shown = capsys.readouterr().out
    assert "6 training images" in shown
    assert "predict runs/detection/fitted fitted.yaml fitted_found.json" in shown
    recipe = load_config(Recipe, "fitted.yaml")
    given = load_config(Recipe, "own.yaml", start={"name": "x"}).data
    chosen = {"max_megapixels": 2.0, "num_workers": recipe.data.num_workers}
    assert recipe.data == given.model_copy(update=chosen)
    assert not recipe.model.mask_head
    assert not list(Path().glob("fitted_*.json"))
    assert main(["data-check", "fitted.yaml"]) == 0


def test_a_config_of_coco_files_is_fitted_too(home: Path) -> None:
    """One written by init itself, for example."""
    assert main(["init", "own.json", "photos", "first.yaml"]) == 0
    assert main(["init", "first.yaml", "second.yaml"]) == 0
    first, second = (load_config(Recipe, name) for name in ("first.yaml", "second.yaml"))
    assert second.data == first.data
    assert second.model == first.model
    assert (second.name, str(second.output_dir)) == ("second", "runs/detection/second")


@pytest.mark.usefixtures("voc_config")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["own.yaml"], "'own.yaml' is an input and would be overwritten"),
        (["own.yaml", "photos", "a.yaml"], "says where its images are; expected CONFIG OUT.yaml"),
        (["own.yaml", "a.yaml", "--split", "0.3"], "says what to test on; leave out --test and"),
        (["own.yaml", "a.yaml", "--test", "own.json"], "says what to test on; leave out --test"),
        (["own.yaml", "a.json"], "'a.json' should end in .yaml"),
        (["own.json"], "'own.json' needs the folder of its images as the second word"),
    ],
)
def test_words_beside_a_config_are_checked(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that the config says is said again."""
    assert main(["init", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("a.yaml").exists()
