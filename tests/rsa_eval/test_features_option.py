"""``--features TRAIN TEST``: from files of features to records, reports and comparisons."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rsa_eval.__main__ import main
from rsa_eval.evaluators.given import GIVEN_EVALUATORS
from rsa_eval.records.find import read_records_below
from rsa_eval.records.record import read_record
from rsa_pretrain.plumbing.errors import UserError

QUICK = {
    "knn": [],
    "linear": ["probe.epochs=2", "probe.milestones=[]"],
    "logistic": ["search.num_values=2"],
    "low-shot": ["subsets=[{per_class: 2}]"],
    "svm": ["machine.costs=[0.1]"],
    "diagnostics": ["vote={k: 3, temperature: null}"],
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with features of the same images by two networks, one of them without a clue."""
    labels = {"train": np.arange(96) % 6, "test": np.arange(48) % 6}
    draws = np.random.default_rng(0)
    centres = draws.normal(size=(6, 5)).astype(np.float32)
    for name, weight in (("good", 3), ("bad", 0)):
        (tmp_path / name).mkdir()
        for split, own in labels.items():
            noise = draws.normal(size=(len(own), 5)).astype(np.float32)
            features = weight * centres[own] + noise
            np.savez(tmp_path / name / f"{split}.npz", features=features, labels=own)
    return tmp_path


def words(folder: Path, kind: str, *settings: str) -> list[str]:
    """Return a command that evaluates the features in a folder."""
    files = [str(folder / f"{split}.npz") for split in ("train", "test")]
    out = folder / "records" / f"{kind}.json"
    return [kind, *settings, "--features", *files, "data_set=blobs", "--out", str(out)]


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a command that must fail, and returns its one line of error."""

    def run(*given: str | Path) -> str:
        assert main([str(word) for word in given]) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        assert captured.out == ""
        return line

    return run


def test_from_files_to_a_verdict(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every evaluator writes a record that compare, report and audit take."""
    for name in ("good", "bad"):
        for kind, settings in QUICK.items():
            assert main([*words(models / name, kind, *settings), "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert f"knn on blobs (48 images): given features, {models / 'good' / 'train.npz'}" in out
    assert "left out: LiDAR, alignment, plots and tables: they need images" in out
    assert len(read_records_below([models])) == 2 * len(QUICK)
    assert QUICK.keys() == GIVEN_EVALUATORS.keys()

    sides = [str(models / "good"), "--against", str(models / "bad")]
    comparison = models / "comparison.json"
    assert main(["compare", *sides, "--json", str(comparison)]) == 0
    verdicts = json.loads(comparison.read_text())["verdicts"]
    by_title = {verdict["title"]: verdict["decision"] for verdict in verdicts}
    assert by_title["knn on blobs"] == "better"
    assert by_title.keys() == {f"{kind} on blobs" for kind in QUICK if kind != "diagnostics"}

    page = models / "page.md"
    words_of_report = ["report", str(models), "--out", str(models / "r.html")]
    assert main([*words_of_report, "--markdown", str(page)]) == 0
    text = page.read_text()
    for name in ("good", "bad"):
        assert text.count(f"| {name}/train.npz ") >= len(QUICK)

    capsys.readouterr()
    assert main(["audit", *sides[:1], *sides[2:]]) in (0, 1)
    assert "knn on blobs (2 records)" in capsys.readouterr().out


def test_labels_that_differ_are_not_compared(models: Path) -> None:
    """Rows are paired by their number, so their labels must be the same."""
    content = dict(np.load(models / "bad" / "test.npz"))
    content["labels"] = np.roll(content["labels"], 1)
    np.savez(models / "bad" / "test.npz", **content)
    for name in ("good", "bad"):
        assert main(words(models / name, "knn")) == 0
    assert main(["compare", str(models / "good"), "--against", str(models / "bad")]) == 2


def test_the_name_of_the_images(models: Path) -> None:
    """By default that of the training file."""
    command = [word for word in words(models / "good", "knn") if not word.startswith("data_set")]
    assert main(command) == 0
    record = read_record(models / "good" / "records" / "knn.json")
    assert record.data_set == "train"
    assert record.config["num_classes"] is None


def test_a_name_that_is_not_utf8(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is text: the byte becomes a question mark."""
    folder = models / "good"
    (folder / "train.npz").rename(folder / "t\udcff.npz")
    command = [word.replace("train.npz", "t\udcff.npz") for word in words(folder, "knn")]
    monkeypatch.setattr("sys.argv", ["rsa-eval", *command])
    assert main([word for word in command if not word.startswith("data_set")]) == 0
    record = read_record(folder / "records" / "knn.json")
    assert record.data_set == "t?"
    assert record.model.checkpoint == str(folder / "t?.npz")
    assert record.details["given"]["train"]["files"].keys() == {"t?.npz"}


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (["data.name=digits"], "data.name cannot be set with --features"),
        (["backbone.arch=resnet18", "layers=[layer3]"], "backbone.arch, layers cannot be set"),
        (["precision=bf16", "batch_size=4"], "precision, batch_size cannot be set"),
        (["cache_dir=x", "feature_dtype=fp16"], "cache_dir, feature_dtype cannot be set"),
        (["probe.crop_ratio=[1, 1]"], "probe.crop_ratio cannot be set"),
        (["stl10_folds=true"], "stl10_folds cannot be set"),
        (["save_every_minutes=1"], "save_every_minutes cannot be set"),
        (["--config", "linear/dinov2"], "data.eval_interpolation (of linear/dinov2) cannot be set"),
        (["probe.mode=online"], "probe.mode online augments images, which given features lack"),
        (["protocl=dinov2"], "unknown key 'protocl'; the nearest valid key is 'protocol'"),
        (["num_classes=1"], "'num_classes': expected a number greater than or equal to 2"),
        (["data_set="], "'data_set': expected a string"),
        (["--random-init"], "give --features or a checkpoint, not both; found --random-init"),
        (["runs/x"], "give --features or a checkpoint, not both; found 'runs/x'"),
    ],
)
def test_settings_of_images(
    models: Path, error_of: Callable[..., str], settings: list[str], error: str
) -> None:
    """Nothing that would be ignored is accepted."""
    command = words(models / "good", "linear")
    assert error in error_of(*command[:-2], *settings, *command[-2:])
    assert not (models / "good" / "records").exists()


def test_what_needs_images(models: Path, error_of: Callable[..., str]) -> None:
    """Fine-tuning, views and pictures need images, multi-label sets too; one line says so."""
    assert "finetune needs images and a network" in error_of(*words(models / "good", "finetune"))
    for kind, setting in (
        ("knn", "leave_one_out=true"),
        ("svm", "multi_label.name=voc"),
        ("diagnostics", "views.weak.flip_probability=0"),
        ("diagnostics", "num_queries=3"),
    ):
        error = error_of(*words(models / "good", kind), setting)
        assert f"{setting.partition('=')[0]} cannot be set with --features" in error


def test_paths(models: Path, error_of: Callable[..., str]) -> None:
    """The record needs a place, which is none of the files; a missing file is named."""
    command = words(models / "good", "knn")
    assert "give --out FILE.json" in error_of(*command[:-2])
    assert "should end in .json" in error_of(*command[:-1], models / "a.txt")
    assert "expected 2 arguments" in error_of("knn", "--features", models / "good" / "train.npz")
    absent = models / "absent.npz"
    error = error_of("knn", "--features", absent, absent, "--out", models / "a.json")
    assert f"cannot read '{absent}': No such file or directory; expected a .npz" in error
    with pytest.raises(UserError, match="cannot read record"):
        read_record(models / "a.json")


def test_doubtful_features_are_warned_of(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes without training images, and features that are all alike, are in the record."""
    folder = models / "good"
    train = dict(np.load(folder / "train.npz"))
    kept = ~np.isin(train["labels"], [0, 3])
    np.savez(folder / "train.npz", features=train["features"][kept], labels=train["labels"][kept])
    for kind, protocol in (("knn", []), ("logistic", []), ("logistic", ["protocol=ridge"])):
        assert main([*words(folder, kind, *QUICK[kind], *protocol), "device=cpu"]) == 0
        warnings = read_record(folder / "records" / f"{kind}.json").warnings
        assert "6 classes, of which 2 have no training image; number the classes" in warnings[-2]
        assert warnings[-1].startswith("16 of 48 test images are of classes without a training")
        assert "image (0, 3), which cannot be predicted" in warnings[-1]
        assert f"warning: {warnings[-1]}" in capsys.readouterr().out
    command = [*words(folder, "knn"), "num_classes=6", "device=cpu"]
    assert main(command) == 0
    (warning,) = read_record(folder / "records" / "knn.json").warnings
    assert warning.startswith("16 of 48")
    alike = np.ones_like(train["features"]) * np.arange(1, 6, dtype=np.float32)
    np.savez(folder / "train.npz", features=alike, labels=train["labels"])
    assert main(command) == 0
    (warning,) = read_record(folder / "records" / "knn.json").warnings
    assert warning.startswith("all training features are alike")
    alike[7] *= 1.01
    np.savez(folder / "train.npz", features=alike, labels=train["labels"])
    assert main(command) == 0
    assert read_record(folder / "records" / "knn.json").warnings == []


def test_a_missing_file_is_found_before_libraries_are_imported(
    models: Path, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module that reads features imports torch, which takes seconds."""
    monkeypatch.setitem(sys.modules, "rsa_eval.campaigns.given_records", None)
    command = [word.replace("train.npz", "absent.npz") for word in words(models / "good", "knn")]
    assert "absent.npz': No such file or directory" in error_of(*command)


@pytest.mark.parametrize(
    ("kind", "setting", "unfinished"),
    [
        ("logistic", "search.max_iterations=1", "2 of 2 fits to choose C did not converge in 1 "),
        ("low-shot", "classifier.max_iterations=1", "3 of 3 fits did not converge in 1 iterations"),
        ("svm", "machine.max_iterations=1", " fits did not converge in 1 iterations"),
    ],
)
def test_unfinished_fits_are_in_the_record(
    models: Path, kind: str, setting: str, unfinished: str
) -> None:
    """Not only in the log, which campaigns and reports do not show."""
    assert main([*words(models / "bad", kind, *QUICK[kind], setting), "device=cpu"]) == 0
    warnings = read_record(models / "bad" / "records" / f"{kind}.json").warnings
    assert sum(unfinished in text for text in warnings) == 1
