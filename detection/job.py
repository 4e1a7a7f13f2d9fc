"""What an engine is given: the recipe, the trunk and the data, all checked."""

from dataclasses import dataclass

import torch

from detection.coco import CocoSet, TrainingImage, check_test_set, open_coco, training_images
from detection.recipe import Recipe
from detection.trunk import Trunk
from rsa_pretrain.checkpoint import file_sha256
from rsa_pretrain.device import check_precision, resolve_device
from rsa_pretrain.errors import UserError


@dataclass(frozen=True)
class Job:
    """One run, ready to start."""

    recipe: Recipe
    trunk: Trunk
    train_images: list[TrainingImage]
    train_sha256: str
    """Of the training annotations; a resumed run must have the same."""
    test_set: CocoSet
    device: torch.device

    @property
    def num_classes(self) -> int:
        """Categories, without the background."""
        return len(self.test_set.category_ids)


def open_job(recipe: Recipe, trunk: Trunk) -> Job:
    """Open the data and the device.

    Raises:
        UserError: If either cannot be used, or training and test categories differ.
    """
    device = resolve_device(recipe.training.device)
    check_precision(recipe.training.precision, device)
    data = recipe.data
    train_set = open_coco(data.train_annotations, data.train_images)
    test_set = open_coco(data.test_annotations, data.test_images)
    if train_set.category_ids != test_set.category_ids:
        raise UserError(
            f"category ids of '{data.train_annotations}' ({train_set.category_ids}) and "
            f"'{data.test_annotations}' ({test_set.category_ids}) differ"
        )
    check_test_set(test_set)
    return Job(
        recipe=recipe,
        trunk=trunk,
        train_images=training_images(train_set),
        train_sha256=file_sha256(data.train_annotations),
        test_set=test_set,
        device=device,
    )
