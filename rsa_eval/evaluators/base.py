"""What an evaluator is, and what all of them do alike."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import torch

from rsa_eval.config import EvaluationConfig
from rsa_eval.metrics import TopKCounts
from rsa_eval.record import Metric, Record
from rsa_eval.subject import Subject
from rsa_pretrain.data import Split, open_images
from rsa_pretrain.device import check_precision, resolve_device
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet


@dataclass(frozen=True)
class Workspace:
    """Where an evaluation may leave files beside its result; nothing is there unless it does."""

    record: Path
    """The record to be written."""

    @property
    def state(self) -> Path:
        """What a stopped evaluation goes on from; removed when the record is written."""
        return self.record.with_suffix(".state.pt")

    def fold_state(self, fold: int) -> Path:
        """Return the state of one of several trainings of an evaluation."""
        return self.state.with_name(f"{self.state.stem}.fold-{fold}.pt")

    def remove_states(self) -> None:
        """Delete what a stopped evaluation goes on from."""
        folds = f"{escape(self.state.stem)}.fold-*.pt"
        for path in (self.state, *self.state.parent.glob(folds)):
            path.unlink(missing_ok=True)

    @property
    def artifacts(self) -> Path:
        """Folder of pictures and tables that belong to the record."""
        return self.record.with_suffix(".artifacts")

    def check_artifacts(self, names: Collection[str]) -> None:
        """Refuse, before any work is done, to replace what is not the evaluation's own.

        Args:
            names: Files the evaluation writes to the folder.

        Raises:
            UserError: If there is a file in the folder's place, or another file in the folder.
        """
        folder = self.artifacts
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"'{folder}' is a file, and the pictures need a folder there")
        foreign = sorted({path.name for path in folder.iterdir()} - set(names))
        if foreign:
            raise UserError(
                f"the pictures would replace the folder '{folder}', which also holds "
                f"'{foreign[0]}'; move that, or give another --out"
            )


@dataclass(frozen=True)
class Evaluator:
    """One way to measure features, under the name that commands and records use."""

    config: type[EvaluationConfig]
    evaluate: Callable[[Subject, Any, Workspace], Record]
    """From a subject, the settings (of type ``config``) and a workspace to the record, which the
    caller writes."""
    summary: str
    """What it does, for the list of commands."""
    measures: str
    """What the numbers are, for its help."""
    example_config: str
    """A file below ``configs/``."""


def record_name(kind: str, config: EvaluationConfig) -> str:
    """Return the file name of an evaluation's record."""
    return f"{kind}-{config.protocol}-{config.data.name}.json"


def place(subject: Subject, config: EvaluationConfig) -> torch.device:
    """Move the subject to the device asked for, and return that.

    Raises:
        UserError: If there is no such device, or it cannot compute at the precision asked for.
    """
    device = resolve_device(config.device)
    check_precision(config.precision, device)
    subject.backbone.to(device)
    return device


def open_labelled(config: EvaluationConfig, split: Split) -> ImageSet:
    """Open one split, every image of which has a class.

    Raises:
        UserError: If the data cannot be used.
    """
    images = open_images(config.data, split)
    images.require_labels()
    return images


def open_splits(config: EvaluationConfig) -> tuple[ImageSet, ImageSet]:
    """Open the training and the test images.

    Raises:
        UserError: If the data cannot be used, a test image has a class unknown in training, or
            all training images are of one class.
    """
    train, test = open_labelled(config, "train"), open_labelled(config, "test")
    check_test_classes(train, test)
    labels = set(train.require_labels())
    if len(labels) == 1:
        raise UserError(
            f"all {len(train):,} training images are of one class, "
            f"'{train.class_names[labels.pop()]}': whatever they are compared with is right"
        )
    return train, ImageSet(test.name, test.sources, test.labels, train.class_names, test.rows)


def check_test_classes(train: ImageSet, test: ImageSet) -> None:
    """Refuse test images of a class that the training images do not know.

    Raises:
        UserError: If there are any.
    """
    unknown = [
        test.class_names[label]
        for label in sorted(set(test.require_labels()))
        if train.class_names[label : label + 1] != [test.class_names[label]]
    ]
    if unknown:
        raise UserError(
            f"the test images of {test.name} are of classes that the training images lack or "
            f"number otherwise ({len(unknown)}): {', '.join(unknown[:10])}"
            f"{' …' if len(unknown) > 10 else ''}"
        )


def lack_of_classes(*sets: ImageSet) -> str | None:
    """Say why images cannot be told apart by class; None if they can."""
    for images in sets:
        if not images.is_labelled:
            return (
                f"{'the' if images.labels is None else 'some'} {images.name} images have no class"
            )
        if len(images.class_names) < 2:
            return f"all {images.name} images are of one class, '{images.class_names[0]}'"
    return None


def accuracy_metrics(counts: TopKCounts, num_classes: int) -> dict[str, Metric]:
    """Return top-1 and, of more than five classes, top-5 as a record holds them."""
    found = counts.percentages(num_classes)
    return {name: Metric(value=value, unit="%") for name, value in found.items()}


def describe_images(
    train: ImageSet, test: ImageSet | None
) -> dict[str, dict[str, str | int] | None]:
    """Return number and fingerprint of the images, for a record's details.

    Args:
        train: Training images.
        test: Test images; None if none were read.
    """
    return {
        split: None if images is None else {"count": len(images), "sha256": images.fingerprint()}
        for split, images in (("train", train), ("test", test))
    }
