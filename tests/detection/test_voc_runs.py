"""Test runs and commands on PASCAL VOC's folders."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from detection.__main__ import main
from detection.coco.evaluation import evaluate
from detection.coco.opening import open_set
from detection.coco.voc.reading import voc_sha256
from detection.commands.data_words import data_of_config
from detection.exchange.export_config import export_config
from detection.job.job import open_job
from detection.job.trunk import load_trunk, random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_from_backbone, run_recipe
from rsa_eval.records.predictions import read_predictions
from rsa_eval.records.record import read_record
from rsa_pretrain.plumbing.config.files import load_config, write_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone

pytestmark = pytest.mark.usefixtures("narrow_detector")

MakeRecipe = Callable[..., Recipe]
SHORT = {"iterations": 1, "decay_at": (), "warmup_iterations": 0}
VOC_NAMES = [f"{kind}_{name}" for kind in ("voc", "voc_area") for name in ("AP", "AP50", "AP75")]


@pytest.fixture
def perfect(make_voc_recipe: MakeRecipe, tmp_path: Path) -> list[str]:
    """A config, and predictions of exactly the test objects, as words of a command."""
    recipe = make_voc_recipe()
    write_config(recipe, tmp_path / "own.yaml")
    found = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for entry in open_set(recipe.data, "test").tree["annotations"]
    ]
    (tmp_path / "found.json").write_text(json.dumps(found), encoding="utf-8")
    return [str(tmp_path / "own.yaml"), str(tmp_path / "found.json")]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = re.findall(r"^error: .*$", capsys.readouterr().err, flags=re.MULTILINE)
    return str(line)


def test_a_run_records_both_families(
    make_voc_recipe: MakeRecipe,
    write_checkpoint: Callable[..., LoadedBackbone],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """COCO's metrics, whose AP stays the headline, and VOC's, also by category; resumed in place.

    Another place of the same files is the same run; another annotation file is not.
    """
    root = tmp_path / "VOCdevkit"
    recipe = make_voc_recipe(solver=SHORT)
    shutil.copytree(recipe.data.root, root)  # type: ignore[union-attr]
    recipe = make_voc_recipe(solver=SHORT, data={"root": root})
    checkpoint = write_checkpoint().path
    trunk = load_trunk(checkpoint, recipe.model)
    assert run_recipe(recipe, trunk, resume=False)[0] == 0
    record = read_record(recipe.output_dir / "records" / "detection.json")
    assert record.headline == "bbox_AP"
    assert record.details["annotations_sha256"] == {
        role: voc_sha256(recipe.data, role)  # type: ignore[arg-type]
        for role in ("train", "test")
    }
    assert {"bbox_AP", "bbox_AP50", "bbox_AP75", *VOC_NAMES} <= set(record.metrics)
    assert "segm_AP" not in record.metrics
    for entry in record.details["categories"]:
        assert set(VOC_NAMES) <= entry.keys()
    assert any("1 objects marked difficult" in line for line in record.deviations)
    assert any(line.startswith("no training instance has a mask") for line in record.deviations)
    kept = read_predictions(recipe.output_dir / "records" / "detection.json", record)
    predictions = json.loads((recipe.output_dir / "predictions.json").read_text(encoding="utf-8"))
    tree = open_set(recipe.data, "test").tree
    expected = evaluate(tree, predictions, ["bbox"])
    assert kept is not None
    assert kept.predictions.value("bbox_AP") == pytest.approx(expected["bbox_AP"])
    assert kept.predictions.value("voc_AP") is None

    config = tmp_path / "own.yaml"
    moved = root.rename(tmp_path / "moved")
    write_config(recipe, config)
    assert run_from_backbone(config, [f"data.root={moved}"], checkpoint) == 0
    assert f"was made with data.root '{root}'" in caplog.text
    recipe = make_voc_recipe(solver=SHORT, data={"root": moved})
    assert run_recipe(recipe, trunk, resume=True)[0] == 0
    changed = make_voc_recipe(solver=SHORT, data={"root": moved, "test": ("2007/trainval",)})
    with pytest.raises(UserError, match=r"other settings: data\.test \(was"):
        run_recipe(changed, trunk, resume=True)
    path = next((moved / "VOC2007" / "Annotations").iterdir())
    text = path.read_text(encoding="utf-8").replace("<difficult>0", "<difficult>1")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"annotations with SHA-256 .*'.*moved' \(2007/trainval\)"):
        run_recipe(recipe, trunk, resume=True)


@pytest.mark.detectron2
def test_the_other_engine_does_the_same(make_voc_recipe: MakeRecipe) -> None:
    """detectron2 trains on the same objects, and is evaluated by both rules."""
    recipe = make_voc_recipe(engine="detectron2", solver=SHORT)
    exit_code, record = run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    assert exit_code == 0
    assert record is not None
    assert {"bbox_AP", *VOC_NAMES} <= set(record.metrics)


def test_train_prints_each_family(
    make_voc_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line each, in the order of the record."""
    write_config(make_voc_recipe(solver=SHORT), tmp_path / "own.yaml")
    assert main(["train", str(tmp_path / "own.yaml"), "--random-init"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["bbox", "voc", "voc_area"]
    assert re.fullmatch(r"voc  AP \d+\.\d  AP50 \d+\.\d  AP75 \d+\.\d", lines[1])


def test_a_run_s_detections_are_drawn_and_repeated(
    make_voc_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Visualize takes the run's folders, or moved ones; predict and evaluate take its config."""
    recipe = make_voc_recipe(solver=SHORT)
    run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    run, page = str(recipe.output_dir), tmp_path / "page.html"
    assert main(["visualize", run, str(page)]) == 0
    assert "(difficult)" in page.read_text(encoding="utf-8")
    lost = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"root": tmp_path / "lost"})}
    )
    write_config(lost, recipe.output_dir / "config.yaml")
    assert main(["visualize", run, str(page)]) == 2
    assert "there is no list" in _error(capsys)
    root = str(recipe.data.root)  # type: ignore[union-attr]
    assert main(["visualize", run, str(page), "--images", root]) == 0
    write_config(recipe, tmp_path / "own.yaml")
    config, out = str(tmp_path / "own.yaml"), str(tmp_path / "found.json")
    assert main(["visualize", run, str(page), "--annotations", config]) == 0
    assert main(["predict", run, config, out, "--num-workers", "0"]) == 0
    predictions = json.loads(Path(out).read_text(encoding="utf-8"))
    assert predictions == json.loads((recipe.output_dir / "predictions.json").read_text())
    assert main(["predict", run, config, root, out]) == 2
    assert "says where its images are" in _error(capsys)


def test_a_detector_of_other_classes_is_refused(
    make_voc_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By their names, as for COCO-format files."""
    recipe = make_voc_recipe(solver=SHORT)
    run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    classes = ("circle", "rectangle", "triangle", "star")
    write_config(make_voc_recipe(data={"classes": classes}), tmp_path / "own.yaml")
    words = [str(recipe.output_dir), str(tmp_path / "own.yaml"), str(tmp_path / "found.json")]
    assert main(["predict", *words]) == 2
    assert re.search(r"categories of detector '.*' and '.*' \(2012/test\) differ", _error(capsys))


def test_evaluate_prints_voc_s_ap(
    perfect: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Below COCO's rows, and by category; of a JSON file's annotations there is none."""
    assert main(["evaluate", *perfect]) == 0
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert lines[1][:4] == ["bbox", "100.00", "100.00", "100.00"]
    assert lines[2] == ["voc", "100.00", "100.00", "100.00", "–", "–", "–"]
    assert lines[3] == ["voc_area", "100.00", "100.00", "100.00", "–", "–", "–"]
    assert lines[5] == ["category", "objects", "bbox", "AP", "voc", "AP50", "voc_area", "AP50"]
    assert "1 objects marked difficult count as neither found nor missed" in caplog.text


def test_a_shipped_config_precedes_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with every other command; a file of that name is read."""
    monkeypatch.chdir(tmp_path)
    word = Path("data/voc0712")
    word.mkdir(parents=True)
    data = data_of_config(word)
    assert data is not None
    assert data.format == "voc"
    word.rmdir()
    word.write_text("{}", encoding="utf-8")
    assert data_of_config(word) is None


def test_configs_of_other_programs_are_refused(
    perfect: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a config stands for annotations, it must be one of detection."""
    assert main(["evaluate", "data/cifar10", perfect[1]]) == 2
    assert "data/cifar10: 'data.train_annotations' is required" in _error(capsys)
    for words in (
        ["visualize", perfect[1], "a.html", "--annotations", "data/voc07"],
        ["init", "data/voc07"],
    ):
        assert main(words) == 2
        assert "nor a shipped config; nearest are data/voc2007, data/voc0712" in _error(capsys)
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["visualize", perfect[1], "a.html", "--annotations", "photos"]) == 2
    assert "'photos' needs the folder of its images: give --images" in _error(capsys)
    assert main(["evaluate", "data/voc07", perfect[1]]) == 2
    assert "cannot read annotations 'data/voc07'" in _error(capsys)


def test_data_check_takes_the_data_alone(
    voc_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A config without a model, such as data/voc0712; --preview marks difficult objects."""
    text = yaml.safe_dump(
        {
            "base": str(voc_folder / "classes.yaml"),
            "data": {
                "name": "own",
                "format": "voc",
                "root": str(voc_folder),
                "train": ["2007/trainval"],
                "test": ["2012/test"],
            },
        }
    )
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    page = tmp_path / "page.html"
    assert main(["data-check", str(tmp_path / "own.yaml"), "--preview", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "note: objects marked difficult; trained on like any other, but neither found" in shown
    assert "no problems found" in shown
    assert "(difficult)" in page.with_stem("page-test").read_text(encoding="utf-8")


def test_an_exported_config_registers_the_folders(
    make_voc_recipe: MakeRecipe, voc_folder: Path, tmp_path: Path
) -> None:
    """Of each set, with its year's rule of AP; detectron2's reader takes boxes alone."""
    out = tmp_path / "out.yaml"
    export_config(make_voc_recipe(), out, None)
    text = out.read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    assert tree["DATASETS"] == {
        "TRAIN": ["shapes-voc_2007_trainval"],
        "TEST": ["shapes-voc_2012_test"],
    }
    assert (tree["MODEL"]["MASK_ON"], tree["MODEL"]["ROI_HEADS"]["NUM_CLASSES"]) == (False, 3)
    assert (
        f"#   register_pascal_voc('shapes-voc_2012_test', '{voc_folder}/VOC2012', 'test', 2012, "
        "['circle', 'rectangle', 'triangle'])\n"
        "#   MetadataCatalog.get('shapes-voc_2012_test').evaluator_type = 'pascal_voc'\n"
    ) in text
    assert 'voc_2007_trainval"' not in text  # detectron2's own sets have other classes
    voc = load_config(Recipe, "data/voc0712", start={"name": "x"}).data
    from detection.exchange.registration import registration

    assert (
        'DATASETS.TRAIN \'("voc_2007_trainval", "voc_2012_trainval",)\' '
        "DATASETS.TEST '(\"voc_2007_test\",)'"
    ) in registration(voc)
    assert "apart" not in registration(voc)


def _registered(*words: str) -> str:
    from detection.exchange.registration import registration

    return registration(load_config(Recipe, "data/voc0712", words, {"name": "x"}).data)


def test_a_set_of_both_roles_is_registered_once() -> None:
    """detectron2 refuses a second registration, and evaluates each test set apart."""
    text = _registered("data.test=[2007/trainval, 2007/test]")
    for name in ("2007_trainval", "2012_trainval", "2007_test"):
        (line,) = re.findall(rf"register_pascal_voc\('voc0712_{name}', .*", text)
        assert text.count(f"MetadataCatalog.get('voc0712_{name}')") == 1
        assert f"VOC{name[:4]}', '{name[5:]}', {name[:4]})" in line
    assert "It evaluates each test set apart; here they are one.\n" in text


def test_only_sets_that_detectron2_knows_are_named() -> None:
    """VOC2012's test set has no published annotations, and no name there."""
    assert '"voc_2012_val"' in _registered("data.test=[2012/val]")
    assert "DATASETS.TEST" not in _registered("data.test=[2012/test]")
    assert "DATASETS.TEST" not in _registered("data.classes=[cat]")


@pytest.mark.detectron2
def test_detectron2_reads_what_is_registered(make_voc_recipe: MakeRecipe, tmp_path: Path) -> None:
    """The printed lines run as they are, and give the boxes that are trained on here."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    recipe = make_voc_recipe()
    export_config(recipe, tmp_path / "out.yaml", None)
    text = (tmp_path / "out.yaml").read_text(encoding="utf-8")
    lines = [line[4:] for line in text.splitlines() if re.match(r"#   (from|register|Meta)", line)]
    exec("\n".join(lines), {})
    name = "shapes-voc_2007_trainval"
    theirs: list[dict[str, Any]] = DatasetCatalog.get(name)
    assert MetadataCatalog.get(name).evaluator_type == "pascal_voc"
    job = open_job(recipe, random_trunk(recipe.model, 0))
    assert [entry["file_name"] for entry in theirs] == [str(i.path) for i in job.train_images]
    for image, entry in zip(job.train_images, theirs, strict=True):
        found = [(e["category_id"] + 1, e["bbox"]) for e in entry["annotations"]]
        boxes = [a["bbox"] for a in image.annotations]
        corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
        assert found == list(zip(image.labels, corners, strict=True))
    for registered in (name, "shapes-voc_2012_test"):
        DatasetCatalog.pop(registered)
        MetadataCatalog.pop(registered)
