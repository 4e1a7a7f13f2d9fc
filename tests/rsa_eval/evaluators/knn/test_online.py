import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsa_eval.evaluators.knn.online import make_online_knn
from rsa_eval.features import pixels
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of noisy images of two colours, one class each, and of several sizes."""
    generator = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 30)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(12):
            noise = generator.integers(0, 40, (40, 40 + number, 3), np.uint8)
            Image.fromarray(noise + np.uint8(level)).save(
                tmp_path / "train" / name / f"{number}.png"
            )
    return tmp_path


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_are_read_without_a_process(
    photos: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluated twice, as in training: the same number, no loader process at any time."""
    tree = {
        "output_dir": str(photos / "run"),
        "data": {"name": "imagefolder", "root": str(photos), "image_size": 32}
        | {"num_workers": num_workers},
        "backbone": {"arch": "resnet18", "stem": "standard"},
        "method": {"name": "rsa", "hidden_dim": 8, "output_dim": 8, "beta_base": 0.3},
        "optimizer": {"base_lr": 0.5, "weight_decay": 5e-4},
        "training": {"epochs": 2, "global_batch_size": 8, "device": "cpu"},
        "monitor": {"knn_every_epochs": 1, "knn_k": 3},
    }
    config = parse_tree(PretrainConfig, tree, "test")
    images, held_out = open_images(config.data, "pretrain").hold_out(8, config.seed)
    if num_workers:
        monkeypatch.setattr(pixels, "make_loader", None)
    evaluate = make_online_knn(config, images, held_out, torch.device("cpu"))
    backbone = build_backbone(config.backbone).train()
    measured = evaluate(backbone)
    assert evaluate(backbone) == measured
    assert measured["knn_top1"] == 100.0
    assert 1 <= measured["rankme"] <= len(held_out)
    assert not multiprocessing.active_children()
