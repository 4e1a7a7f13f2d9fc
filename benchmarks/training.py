"""Run whole training epochs of the trainer, for the benchmarks that compare them."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from benchmarks.measure import BenchmarkSettings, Device
from benchmarks.modes import Mode, training_in
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import Tree, parse_tree
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.training.trainer import Trainer

HIDDEN_DIM, OUTPUT_DIM = 1024, 128
"""Widths of projector and predictor, as in the paper for ResNet-18."""

RSA: Tree = {
    "name": "rsa",
    "beta_base": 0.3,
    "hidden_dim": HIDDEN_DIM,
    "output_dim": OUTPUT_DIM,
}
BYOL: Tree = {"name": "byol", "hidden_dim": HIDDEN_DIM, "output_dim": OUTPUT_DIM}


class TrainingSettings(BenchmarkSettings):
    """A ResNet on a class-balanced part of CIFAR-10, or on noise if RSA_DATA has none."""

    on_gpu: ClassVar[dict[str, Any]] = {"num_images": 49_920}

    repeats: Annotated[int, Field(ge=1)] = 3
    """Timed epochs of each candidate, each after a warm-up epoch of the same training."""
    num_images: Annotated[int, Field(ge=4)] = 1024
    """Images per epoch."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Images per step."""
    arch: Literal["resnet18", "resnet50"] = "resnet18"
    """Network."""
    stem: Literal["standard", "cifar"] = "standard"
    """Its stem."""


def training_config(
    settings: TrainingSettings,
    method: Tree,
    precision: Precision,
    folder: Path,
    mode: Mode | None = None,
) -> PretrainConfig:
    """Return a config of two epochs with batched views and no checkpoint between them."""
    tree: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "seed": settings.seed,
        "data": {"name": "cifar10", "root": str(folder), "image_size": 32, "num_workers": 0},
        "views": {"implementation": "batched"},
        "backbone": {"arch": settings.arch, "stem": settings.stem},
        "method": method,
        "optimizer": {"base_lr": 0.1, "weight_decay": 5e-4},
        "training": {
            "epochs": 2,
            "global_batch_size": settings.batch_size,
            "precision": precision,
            "device": settings.device,
            "checkpoint_every_epochs": 2,
            **training_in(mode, settings.device),
        },
        "monitor": {"knn_every_epochs": 1},
    }
    return parse_tree(PretrainConfig, tree, "benchmark")


def trainer_epoch(
    settings: TrainingSettings,
    method: Tree,
    precision: Precision,
    images: ImageSet,
    mode: Mode | None = None,
) -> float:
    """Train two epochs and return the seconds of the second."""
    first, second = epoch_ends(settings, method, precision, images, mode)
    return second - first


def epoch_ends(
    settings: TrainingSettings,
    method: Tree,
    precision: Precision,
    images: ImageSet,
    mode: Mode | None = None,
) -> list[float]:
    """Train two epochs and return their end times; empty outside the main process."""
    ends: list[float] = []

    def note_the_end(backbone: nn.Module) -> dict[str, float]:
        wait_for(settings.device)
        ends.append(time.perf_counter())
        return {}

    with tempfile.TemporaryDirectory() as name:
        config = training_config(settings, method, precision, Path(name), mode)
        # Called in place of the nearest-neighbour monitor, after an epoch and before saving.
        Trainer(config, images, resume=False, evaluate=note_the_end).run()
    return ends


def timed_epoch(epoch: Callable[[], object], device: Device) -> float:
    """Run an epoch twice and return the seconds of the second."""
    epoch()
    wait_for(device)
    started = time.perf_counter()
    epoch()
    wait_for(device)
    return time.perf_counter() - started


def alternate_epochs(
    candidates: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Train candidates in turn, so that other load on the machine affects all of them.

    Args:
        candidates: Training functions by name; each returns the seconds of an epoch.
        repeats: Number of turns.

    Returns:
        Seconds of each epoch, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, train in candidates.items():
            seconds[name].append(train())
    return seconds


def wait_for(device: Device) -> None:
    """Wait until a GPU has finished all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
