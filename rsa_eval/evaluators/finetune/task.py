"""Define what fine-tuning learns: the class of each image, or the presence of each of several."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.average_precision import ELEVEN_POINTS, ranking_scores
from rsa_eval.evaluators.shared.held_out_labels import multi_label_rows, require_classes
from rsa_eval.evaluators.shared.labelled_images import (
    accuracies,
    describe_images,
    headline_of,
    open_splits,
)
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.evaluators.shared.multi_label import (
    MultiLabelSet,
    describe_multi_label,
    multi_label_validation,
    open_multi_label_splits,
)
from rsa_eval.evaluators.shared.subsets import Rows, class_counts
from rsa_eval.evaluators.shared.validation import publishes_validation, validation_rows
from rsa_eval.records.record import Scores
from rsa_pretrain.data.image_set import ImageSet

_SHARE = "grid.held_out_percent"


class TuningTask(Protocol):
    """Labelled images, and what a network learns to say of them."""

    @property
    def images(self) -> ImageSet:
        """The images."""

    @property
    def num_outputs(self) -> int:
        """Outputs of the network."""

    @property
    def headline(self) -> str:
        """The metric that chooses, and that a table shows."""

    @property
    def annotation(self) -> str:
        """Identifies what is to be learnt, beside the fingerprint of the images."""

    def select(self, rows: Rows) -> Self:
        """Return the task on the images with these places."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, summed over the images.

        Args:
            logits: (n, num_outputs).
            labels: Labels that the image set gives, int64 (n,).
        """

    def scores(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> Scores | None:
        """Score a network's answers to all images.

        Args:
            blocks: Logits and labels of successive images, on any device.

        Returns:
            None if a logit is NaN.
        """

    def validation(self, config: FinetuneConfig) -> Rows:
        """Return the places of the images that choose settings.

        Raises:
            UserError: If there are none, or none to train on.
        """

    def class_sizes(self) -> dict[str, int]:
        """Return the sizes of the smallest and the largest class, for a record's details."""

    def describe(self, test: Self) -> dict[str, Any]:
        """Describe these training images and test images, for a record's details."""


@dataclass(frozen=True)
class ClassTask:
    """Images of one class each, learnt by softmax cross-entropy.

    Attributes:
        images: The images.
    """

    images: ImageSet
    annotation = ""

    @property
    def num_outputs(self) -> int:
        """Number of classes."""
        return len(self.images.class_names)

    @property
    def headline(self) -> str:
        """The accuracy that the literature reports."""
        return headline_of(self.images.name)

    def select(self, rows: Rows) -> Self:
        """Return some of the images."""
        return replace(self, images=self.images.select(rows))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, summed over the images."""
        return functional.cross_entropy(logits, labels, reduction="sum")

    def scores(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> Scores | None:
        """Return the accuracies."""
        answers = Answers.of([answer(logits, labels) for logits, labels in blocks])
        if answers is None:
            return None
        labels = self.images.labels_of(range(len(self.images)))
        predictions = kept_answers(labels, {"": [answers]}, self.num_outputs)
        return Scores(
            metrics=accuracies(answers.counts, predictions, self.headline),
            headline=self.headline,
            num_samples=len(self.images),
            details={},
            predictions=predictions,
        )

    def validation(self, config: FinetuneConfig) -> Rows:
        """Return the published validation images, or a share of each class."""
        percent = config.grid.held_out_percent
        return validation_rows(self.images, config.data, percent, config.seed, key=_SHARE)

    def class_sizes(self) -> dict[str, int]:
        """Return the numbers of images of the smallest and the largest class."""
        return class_counts(self.images.require_labels())

    def describe(self, test: Self) -> dict[str, Any]:
        """Describe the images."""
        return {"images": describe_images(self.images, test.images)}


@dataclass(frozen=True)
class MultiLabelTask:
    """Images with any number of classes each, learnt by the sigmoid cross-entropy of each class.

    The loss of an image is the mean over all classes, as in the code of Ericsson et al. 2021
    (finetune.py of linusericsson/ssl-transfer), whose grid spans the rates and decays of BYOL's; an
    image left out of a class adds nothing, as in the logistic regression.

    Attributes:
        labelled: The images and their annotation.
    """

    labelled: MultiLabelSet
    headline = ELEVEN_POINTS

    @property
    def images(self) -> ImageSet:
        """The images, labelled by combination of classes."""
        return self.labelled.images

    @property
    def num_outputs(self) -> int:
        """Number of classes."""
        return len(self.labelled.class_names)

    @property
    def annotation(self) -> str:
        """SHA-256 of the annotation."""
        return self.labelled.sha256()

    def select(self, rows: Rows) -> Self:
        """Return some of the images."""
        return replace(self, labelled=self.labelled.select(rows))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy over the classes, summed over the images."""
        signs = self._signs.to(logits.device)[labels].to(logits.dtype)
        return (
            functional.binary_cross_entropy_with_logits(
                logits, (signs + 1) / 2, weight=signs.abs(), reduction="sum"
            )
            / self.num_outputs
        )

    def scores(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> Scores | None:
        """Return the mean average precisions, and each class's in the details."""
        scores = torch.cat([logits.double().cpu() for logits, _ in blocks]).numpy()
        if np.isnan(scores).any():
            return None
        return ranking_scores(scores, self.labelled.every_truth, self.labelled.class_names)

    def validation(self, config: FinetuneConfig) -> Rows:
        """Return the published validation images, or a share of all images."""
        assert config.multi_label is not None
        published = multi_label_validation(config.data, config.multi_label, self.labelled)
        truth, names = self.labelled.every_truth, self.labelled.class_names
        percent = config.grid.held_out_percent
        return multi_label_rows(truth, published, names, percent, config.seed, key=_SHARE)

    def class_sizes(self) -> dict[str, int]:
        """Return the numbers of images of the rarest and the most frequent class."""
        sizes = (self.labelled.every_truth == 1).sum(axis=0)
        return {"smallest_class": int(sizes.min()), "largest_class": int(sizes.max())}

    def describe(self, test: Self) -> dict[str, Any]:
        """Describe the images and their annotation."""
        return describe_multi_label(self.labelled, test.labelled)

    @cached_property
    def _signs(self) -> Tensor:
        return torch.from_numpy(self.labelled.combinations)


def open_tasks(config: FinetuneConfig) -> tuple[TuningTask, TuningTask]:
    """Open the training and the test images, alike in what is to be learnt.

    Raises:
        UserError: If the data cannot be used.
    """
    if config.multi_label is None:
        train, test = open_splits(config)
        return ClassTask(train), ClassTask(test)
    several, tested = open_multi_label_splits(config.data, config.multi_label)
    require_classes(tested.every_truth, (1,), tested.class_names, "test images")
    require_classes(several.every_truth, (1, -1), several.class_names, "training images")
    return MultiLabelTask(several), MultiLabelTask(tested)


def has_published_validation(config: FinetuneConfig) -> bool:
    """Return whether the images' publisher sets some aside for choosing settings."""
    if config.multi_label is None:
        return publishes_validation(config.data)
    return config.multi_label.validation_split is not None
