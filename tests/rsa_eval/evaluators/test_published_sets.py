"""Data sets with specific protocols, from small generated trees in their published layout."""

import io
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.linear.evaluator import evaluate_linear
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.features.subject import load_subject
from rsa_pretrain.data.sets import stl10
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

NETWORK = {"arch": "resnet18", "stem": "standard"}
PROBE = {"mode": "cached", "epochs": 2, "milestones": [], "batch_size": 16, "base_lr": 1.0}


def _config(data: dict[str, Any], **settings: Any) -> LinearConfig:
    tree = {"data": data | {"num_workers": 0}, "backbone": NETWORK, "device": "cpu", **settings}
    return parse_tree(LinearConfig, {"probe": PROBE, **tree}, "test")


@pytest.fixture
def stl10_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """60 training and 20 test images whose colour tells the class, in ten folds of 10 images."""
    sizes = {"train": 60, "test": 20}
    monkeypatch.setattr(stl10, "NUM_IMAGES", sizes)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, count in sizes.items():
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = generator.integers(0, 256, (10, 3, 1, 1), dtype=np.uint8)[labels]
        noise = generator.integers(0, 64, (count, 3, 96, 96), dtype=np.uint8)
        (folder / f"{part}_X.bin").write_bytes((pixels // 2 + noise).tobytes())
        (folder / f"{part}_y.bin").write_bytes((labels + 1).tobytes())
    lines = [" ".join(str((7 * fold + row) % 60) for row in range(10)) for fold in range(10)]
    (folder / "fold_indices.txt").write_text(" \n".join(lines) + " \n")
    return {"name": "stl10", "root": str(tmp_path), "image_size": 32}


def test_stl10_by_its_ten_folds(stl10_data: dict[str, Any], workspace: Workspace) -> None:
    """Each fold is what a probe on that fold alone gives; the result is their mean and spread."""
    config = _config(stl10_data, stl10_folds=True)
    subject = load_subject(None, config)
    result = evaluate_linear(subject, config, workspace)
    folds = result.details["folds"]
    assert [fold["fold"] for fold in folds] == list(range(10))
    values = [fold["top1"] for fold in folds]
    assert len(set(values)) > 1
    assert result.metrics["top1"].value == pytest.approx(mean(values))
    assert result.metrics["top1_std"].value == pytest.approx(stdev(values))
    assert result.num_samples == 20
    alone = _config(stl10_data | {"stl10_fold": 4})
    one = evaluate_linear(subject, alone, workspace)
    assert one.metrics["top1"].value == folds[4]["top1"]
    assert one.details["loss_by_epoch"] == folds[4]["loss_by_epoch"]
    assert one.details["images"]["train"]["count"] == 10
    assert len(list(workspace.record.parent.glob("*.state.fold-*.pt"))) == 10
    workspace.remove_states()
    assert not list(workspace.record.parent.glob("*"))


def test_stl10_without_folds_trains_on_all(
    stl10_data: dict[str, Any], workspace: Workspace
) -> None:
    """As the paper does; the file of the folds is not even needed."""
    (Path(stl10_data["root"]) / "stl10_binary" / "fold_indices.txt").unlink()
    config = _config(stl10_data)
    result = evaluate_linear(load_subject(None, config), config, workspace)
    assert result.details["images"]["train"]["count"] == 60
    assert "folds" not in result.details
    with pytest.raises(UserError, match=r"no .*fold_indices\.txt.*download"):
        evaluate_linear(
            load_subject(None, config), _config(stl10_data, stl10_folds=True), workspace
        )


def test_tiny_imagenet_by_its_annotations(tmp_path: Path, workspace: Workspace) -> None:
    """200 classes; a validation image has the class of its line, wherever it lies in the folder."""
    folder = tmp_path / "tiny-imagenet-200"
    classes = [f"n{number:08}" for number in range(200)]
    for number, name in enumerate(classes):
        _write(folder / "train" / name / "images" / f"{name}_0.JPEG", number)
    lines = []
    for number in range(200):
        label = number * 7 % 200
        _write(folder / "val" / "images" / f"val_{number}.JPEG", label)
        lines.append(f"val_{number}.JPEG\t{classes[label]}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    # Every validation image equals the training image of its class, which a nearest-mean
    # classifier finds; a probe that heads for it must be far above chance, 0.5 %.
    probe = PROBE | {"epochs": 60, "base_lr": 30.0, "standardise": True}
    config = _config(
        {"name": "tiny_imagenet", "root": str(tmp_path), "image_size": 32}, probe=probe
    )
    result = evaluate_linear(load_subject(None, config), config, workspace)
    assert result.num_samples == 200
    assert result.details["images"]["train"]["count"] == 200
    assert result.metrics["top1"].value > 90


def _write(path: Path, number: int) -> None:
    """Write a 64 px JPEG of blocks that the number decides."""
    generator = np.random.default_rng(number)
    blocks = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST).save(buffer, "JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
