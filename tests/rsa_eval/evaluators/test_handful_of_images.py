"""A handful of images a class: a number where one is possible, else what would make it so."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsa_eval.__main__ import main
from rsa_eval.evaluators.shared.held_out import held_out_rows
from rsa_eval.records.record import read_record
from rsa_pretrain.plumbing.errors import UserError

NETWORK = ["--random-init", "backbone.arch=resnet18", "backbone.stem=standard", "device=cpu"]
HEADS = ["protocol=dinov2", "probe.mode=cached", "probe.epochs=1"]
SEARCH = ["search.num_values=3"]
TUNING = ["tuning.epochs=1", "tuning.milestones=[]"]


def _evaluate(folder: Path, num_classes: int, per_class: int, words: list[str]) -> int:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(num_classes):
            (folder / split / f"class-{number}").mkdir(parents=True, exist_ok=True)
            for image in range(per_class):
                pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
                path = folder / split / f"class-{number}" / f"{image}.png"
                Image.fromarray(pixels).save(path)
    data = [f"data.root={folder}", "data.name=imagefolder", "data.image_size=32"]
    out = ["--out", str(folder / "record.json"), "data.num_workers=0"]
    return main([words[0], *NETWORK, *data, *out, *words[1:]])


@pytest.mark.parametrize(
    ("num_classes", "per_class", "words", "message"),
    [
        (2, 2, ["linear", *HEADS], "10 % of 4 training images holds out none for selection; set "
         "probe.held_out_share=0.5"),
        (2, 2, ["logistic", *SEARCH], "set search.held_out_percent=50"),
        (3, 1, ["linear", *HEADS], "each of 3 classes has a single training image"),
        (3, 1, ["logistic", *SEARCH], "a class needs two images or more"),
        (2, 2, ["svm"], "with 3 folds needs 3, or set machine.folds=2"),
        (2, 1, ["svm"], "with 3 folds needs 3: add some, or leave the class out"),
        (2, 3, ["low-shot"], "class 'class-0' of imagefolder has 3 images; set per_class=3"),
        (3, 1, ["diagnostics"], "found 3 test images; split=train analyses the 3 training images"),
        (3, 1, ["diagnostics", "split=train"], "need 4 images or more, found 3 train images"),
        (1, 5, ["knn", "leave_one_out=true"], "all 5 training images are of class 'class-0'; an "
         "evaluation needs two classes or more: check data.root and data.train_dir"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_what_can(
    tmp_path: Path,
    num_classes: int,
    per_class: int,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One error line names the setting and the value, or the images that are needed."""
    assert _evaluate(tmp_path, num_classes, per_class, words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("num_classes", "per_class", "words"),
    [
        (2, 2, ["linear", *HEADS, "probe.held_out_share=0.5"]),
        (2, 2, ["logistic", *SEARCH, "search.held_out_percent=50"]),
        (2, 2, ["svm", "machine.folds=2"]),
        (2, 3, ["low-shot", "subsets=[{per_class: 3}]"]),
        (2, 2, ["finetune", *TUNING, "subset=null"]),
        (3, 2, ["diagnostics"]),
        (2, 2, ["knn"]),
    ],
)
def test_what_is_said_to_be_possible_is(
    tmp_path: Path, num_classes: int, per_class: int, words: list[str]
) -> None:
    """The named values work, and every test image is counted."""
    assert _evaluate(tmp_path, num_classes, per_class, words) == 0
    record = read_record(tmp_path / "record.json")
    assert record.num_samples == num_classes * per_class


@pytest.mark.parametrize("sizes", [[2, 2], [3, 3, 3], [5, 1, 4], [7, 2], [1, 3], [9, 11, 6]])
def test_the_share_that_is_named_holds_out_each_class_that_can(sizes: list[int]) -> None:
    """From it comes an image of each class with two or more, and one of each stays."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(UserError, match="set share=") as refused:
        held_out_rows(labels, 1e-9, 0, key="share", unit=1)
    percent = float(str(refused.value).partition("share=")[2].partition(",")[0])
    rows = held_out_rows(labels, percent, 0, key="share", unit=1)
    assert set(labels[rows]) == {label for label, size in enumerate(sizes) if size > 1}
    assert set(np.delete(labels, rows)) == set(range(len(sizes)))


def test_a_choice_on_few_classes_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Two images of two of three classes are held out: a choice on them is one of few."""
    with caplog.at_level(logging.WARNING):
        held_out_rows(np.repeat([0, 1, 2], 5), 10, 0, key="probe.held_out_share", unit=0.01)
    assert "2 of 15 training images are held out for selection, from 2 of 3 classes" in caplog.text
    caplog.clear()
    held_out_rows(np.repeat([0, 1, 2], 10), 10, 0, key="probe.held_out_share", unit=0.01)
    assert not caplog.text
