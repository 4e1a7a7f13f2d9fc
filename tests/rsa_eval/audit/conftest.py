"""Pictures, folders of them, and a set of records without anything to find."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import data_tree
from PIL import Image

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.predictions import file_of
from rsa_eval.records.record import Record, write_record
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig

ROWS = ("byol", "rsa", "control", "random")


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """A function that draws a picture with structure at all scales; a seed gives its content."""

    def draw(seed: int, width: int = 120, height: int = 96) -> Image.Image:
        generator = np.random.default_rng(seed)
        layers = [
            np.asarray(
                Image.fromarray(
                    generator.integers(0, 256, (side, side, 3)).astype(np.uint8)
                ).resize((width, height), Image.Resampling.BICUBIC),
                np.float64,
            )
            for side in (3, 7, 15, 40)
        ]
        mixed = np.average(layers, axis=0, weights=[4, 3, 2, 1])
        return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))

    return draw


@pytest.fixture
def opened() -> Callable[[Path, str], ImageSet]:
    """A function that opens a split of an image folder."""

    def open_split(root: Path, split: str) -> ImageSet:
        config = DataConfig.model_validate(data_tree(root))
        return open_images(config, "test" if split == "val" else "train")

    return open_split


@pytest.fixture
def write_entry(
    make_result: Callable[..., Record], tmp_path: Path
) -> Callable[..., tuple[Path, Record]]:
    """A function that writes a record of a run, with answers to its test images."""

    def write(
        name: str, keys: list[str] | None = None, wrong: tuple[int, ...] = (), **changes: Any
    ) -> tuple[Path, Record]:
        keys = [str(number) for number in range(30)] if keys is None else keys
        path = tmp_path / "runs" / name / "records" / "linear.json"
        labels = np.zeros(len(keys), np.uint8)
        predicted = labels.copy()
        predicted[list(wrong)] = 1
        answers = ClassPredictions(labels, predicted[None], predicted[None], ("",), 2)
        entry, content = file_of(keys, answers, path)
        images = {"count": len(keys), "sha256": "7e" * 32}
        details = {"images": {"train": {"count": 60, "sha256": "a1" * 32}, "test": images}}
        fields = {"details": details, "predictions": entry, "num_samples": len(keys)} | changes
        record = make_result(**fields)
        write_record(record, path, content)
        return path, record

    return write


@pytest.fixture
def with_training() -> Callable[..., Record]:
    """A function that gives a record's weights a seed and a pretraining run."""

    def train(record: Record, method: str, seed: int, **changes: Any) -> Record:
        assert record.model.metadata is not None
        metadata = record.model.metadata.model_copy(update={"method": method, "seed": seed})
        pretraining: dict[str, Any] = {
            "seed": seed,
            "data": {"name": "cifar10", "root": "data", "image_size": 32},
            "views": {"weak": {"flip_probability": 0.5}},
            "method": {"name": method},
            "optimizer": {"base_lr": 0.1},
            "training": {"epochs": 2, "global_batch_size": 64},
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            pretraining[section] = pretraining[section] | {name: value}
        model = record.model.model_copy(
            update={
                "metadata": metadata,
                "pretraining": pretraining,
                "sha256": f"{method}{seed}".ljust(64, "0"),
            }
        )
        return record.model_copy(update={"model": model})

    return train


@pytest.fixture
def comparable(
    write_entry: Callable[..., tuple[Path, Record]], with_training: Callable[..., Record]
) -> list[tuple[Path, Record]]:
    """Two methods, the BatchNorm control and random weights, two seeds each: nothing to find."""
    found = []
    for row in ROWS:
        for seed in (0, 1):
            path, record = write_entry(
                f"{row}/seed-{seed}", random_init=row == "random", seeds=[seed]
            )
            if row == "control":
                record = with_training(record, "byol", seed, optimizer__base_lr=1e-9)
            elif row != "random":
                record = with_training(record, row, seed)
            settings = {"seed": seed, "data": {"name": "digits", "mean": [0.3] * 3}}
            settings["data"] |= {"std": [0.35] * 3}  # type: ignore[operator]
            found.append((path, record.model_copy(update={"config": settings})))
    return found
