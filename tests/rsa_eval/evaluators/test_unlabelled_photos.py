"""Photographs without classes: label-free evaluations work, and the others say why they fail."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rsa_eval.__main__ import main
from rsa_eval.evaluators.diagnostics.embedding_plot import draw_embedding
from rsa_eval.evaluators.diagnostics.geometry import rank_me, uniformity
from rsa_eval.evaluators.diagnostics.retrieval import find_neighbours
from rsa_eval.evaluators.diagnostics.retrieval_page import (
    draw_retrieval,
    retrieval_rows,
    write_retrieval_page,
)
from rsa_eval.evaluators.shared.neighbours import Neighbours
from rsa_eval.records.record import Record, read_record
from rsa_pretrain.data.image_set import ImageSet

NETWORK = ["--random-init", "backbone.arch=resnet18", "backbone.stem=standard", "device=cpu"]
LABEL_FREE = {"rankme", "alpha_req", "lidar", "feature_std", "uniformity"} | {
    "alignment",
    "alignment_weak",
}
PICTURES = {"neighbours.png", "neighbours.html", "embedding.png"}


def _write(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        pixels = generator.integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo-{number}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine photographs to train on and six others, in no class folders."""
    _write(tmp_path / "photos" / "train", 9, 0)
    _write(tmp_path / "photos" / "val", 6, 1)
    return tmp_path / "photos"


@pytest.fixture
def only_train(tmp_path: Path) -> Path:
    """Nine photographs and no folder of others."""
    _write(tmp_path / "photos" / "train", 9, 0)
    return tmp_path / "photos"


def _data(folder: Path) -> list[str]:
    return [
        f"data.root={folder}",
        "data.name=imagefolder",
        "data.image_size=32",
        "data.num_workers=0",
    ]


def _diagnose(folder: Path, out: Path, *words: str) -> Record:
    assert main(["diagnostics", *NETWORK, *_data(folder), "--out", str(out), *words]) == 0
    return read_record(out)


def test_features_of_photos_without_classes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every photo's features are kept, with a label that is no class, and that is said."""
    cache = tmp_path / "cache"
    words = ["features", *NETWORK, *_data(photos), f"cache_dir={cache}"]
    assert main(words) == 0
    assert "images without a class have label -1" in capsys.readouterr().out
    tensors = [load_file(path) for path in cache.glob("*.safetensors")]
    assert sorted(len(each["features"]) for each in tensors) == [6, 9]
    assert all((each["labels"] == -1).all() for each in tensors)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("features", "or set splits=[train] to leave out the test images"),
        ("diagnostics", "or set split=train to analyse the training images"),
    ],
)
def test_without_test_images_the_way_out_is_said(
    only_train: Path,
    tmp_path: Path,
    command: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The training images never stand in silently, and nothing was extracted before."""
    out = ["cache_dir=" + str(tmp_path / "cache")]
    if command == "diagnostics":
        out += ["--out", str(tmp_path / "record.json")]
    assert main([command, *NETWORK, *_data(only_train), *out]) == 2
    error = capsys.readouterr().err
    assert "val' (data.test_dir) is not a folder" in error
    assert hint in error
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "record.json").exists()


def test_features_of_the_training_photos_alone(only_train: Path, tmp_path: Path) -> None:
    """The way out that the message names works."""
    words = [*NETWORK, *_data(only_train), f"cache_dir={tmp_path / 'cache'}", "splits=[train]"]
    assert main(["features", *words]) == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_diagnostics_of_photos_without_classes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The label-free numbers are those of the test photos' features; no other is made up."""
    cache = tmp_path / "cache"
    record = _diagnose(photos, tmp_path / "record.json", f"cache_dir={cache}")
    assert set(record.metrics) == LABEL_FREE
    assert record.num_samples == 6
    found = [load_file(path)["features"] for path in cache.iterdir()]
    (features,) = (each for each in found if len(each) == 6)
    assert record.metrics["rankme"].value == pytest.approx(rank_me(features))
    assert record.metrics["uniformity"].value == pytest.approx(uniformity(features))
    assert "vote_top1" not in record.details
    assert "most_frequent_mistakes" not in record.details
    (reason,) = record.details["left_out"]
    assert "confusion matrix" in reason
    assert "the imagefolder images have no class" in reason
    assert f"left out: {reason}" in capsys.readouterr().out
    folder = tmp_path / "record.artifacts"
    assert {path.name for path in folder.iterdir()} == PICTURES
    assert {Path(path).name for path in record.artifacts.values()} == PICTURES


def test_diagnostics_of_the_training_photos(only_train: Path, tmp_path: Path) -> None:
    """Asked for, they are looked at, each beside the others, and the record says which."""
    record = _diagnose(only_train, tmp_path / "record.json", "split=train", "num_neighbours=3")
    assert set(record.metrics) == LABEL_FREE
    assert record.num_samples == 9
    assert record.details["images"]["test"] is None
    assert "training images looked at (protocol: test images)" in record.deviations
    page = (tmp_path / "record.artifacts" / "neighbours.html").read_text()
    assert "9 imagefolder training images beside the nearest of 8 other training images" in page
    assert page.count('alt="neighbour"') == 9 * 3
    assert "1.00</b>" not in page.replace("<b>query</b>", "")  # no photo finds itself


def test_one_folder_for_all_photos_is_no_classes(tmp_path: Path) -> None:
    """With a single class a vote is always right, which would be a number about nothing."""
    _write(tmp_path / "photos" / "train" / "images", 9, 0)
    record = _diagnose(tmp_path / "photos", tmp_path / "record.json", "split=train")
    assert set(record.metrics) == LABEL_FREE
    (reason,) = record.details["left_out"]
    assert "all imagefolder images are of one class, 'images'" in reason


def test_a_suite_says_a_common_reason_once(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Evaluations that need classes fail together; the diagnostics are recorded."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"data: {{name: imagefolder, root: '{photos}', image_size: 32, num_workers: 0}}\n"
        "evaluations: {knn: {}, linear: {}, diagnostics: {}, logistic: {}, svm: {}}\n"
    )
    words = ["suite", "--suite", str(suite), *NETWORK, "--out", str(tmp_path / "out")]
    with caplog.at_level(logging.WARNING):
        assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "4 of 5 evaluations failed" in error
    assert "knn, linear, logistic, svm of random-resnet18-standard-seed0: 9 of 9" in error
    assert error.count("images have no classes") == 1
    assert sum("images have no classes" in line for line in caplog.messages) == 1
    records = list((tmp_path / "out").rglob("records/*.json"))
    assert [path.name for path in records] == ["diagnostics.json"]


def test_neighbours_within_one_set_are_others() -> None:
    """Without queries each row finds the nearest of all others, whatever the memory."""
    bank = torch.randint(0, 2, (30, 4)).float() * 2 - 1
    similarities = bank @ bank.T / 4
    similarities.fill_diagonal_(-torch.inf)
    order = similarities.sort(dim=1, descending=True, stable=True).indices
    for memory_budget_mib in (0, 16):
        found = find_neighbours(bank, None, 5, memory_budget_mib, torch.device("cpu"))
        assert torch.equal(found.indices, order[:, :5])
    assert find_neighbours(bank, None, 99, 16, torch.device("cpu")).indices.shape == (30, 29)


def test_pictures_without_classes(tmp_path: Path) -> None:
    """No mark of right or wrong, no name and no legend is drawn where there is nothing to tell."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)
    images = ImageSet.from_array("photos", pixels, [-1] * 6, [])
    neighbours = Neighbours(torch.tensor([[0.9, 0.5]]), torch.tensor([[1, 2]]))
    rows = retrieval_rows(images, images, None, [0], neighbours)
    assert rows[0].num_right is None
    assert all(shown.class_name is None for shown in (rows[0].query, *rows[0].neighbours))
    write_retrieval_page(rows, "photos", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "✓" not in page
    assert 'class="wrong"' not in page
    draw_retrieval(rows, "photos", tmp_path / "neighbours.png")
    draw_embedding(np.eye(4)[:, :2], None, (), "photos", 0, tmp_path / "embedding.png")
    for name in ("neighbours.png", "embedding.png"):
        with Image.open(tmp_path / name) as picture:
            picture.load()
