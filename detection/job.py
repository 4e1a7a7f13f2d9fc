"""What an engine is given: the recipe, the trunk and the data, all checked."""

import logging
from dataclasses import dataclass

import torch

from detection.coco import (
    CocoSet,
    TrainingImage,
    check_test_set,
    first_of,
    open_coco,
    training_images,
)
from detection.recipe import Recipe
from detection.trunk import Trunk
from rsa_pretrain.checkpoint import (
    FORMAT_VERSION,
    BackboneMetadata,
    file_sha256,
    library_versions,
)
from rsa_pretrain.config_files import config_hash
from rsa_pretrain.device import check_precision, resolve_device
from rsa_pretrain.distributed import world_size
from rsa_pretrain.errors import UserError

logger = logging.getLogger(__name__)

METHOD = "mask_rcnn"


@dataclass(frozen=True)
class Job:
    """One run, ready to start."""

    recipe: Recipe
    """Its norms are those that these processes can compute."""
    trunk: Trunk
    train_images: list[TrainingImage]
    train_sha256: str
    """Of the training annotations; a resumed run must have the same."""
    test_set: CocoSet
    device: torch.device
    deviations: tuple[str, ...]
    """How the run departs from the recipe as written."""

    @property
    def num_classes(self) -> int:
        """Categories, without the background."""
        return len(self.test_set.category_ids)

    def metadata(self, step: int) -> BackboneMetadata:
        """Describe the detector after ``step`` iterations."""
        recipe = self.recipe
        return BackboneMetadata(
            format_version=FORMAT_VERSION,
            arch=self.trunk.backbone.arch,
            stem=self.trunk.backbone.stem,
            method=METHOD,
            image_size=recipe.input.test_short_side_pixels,
            channel_order="RGB",
            mean=self.trunk.mean,
            std=self.trunk.std,
            data_set=recipe.data.name,
            epochs=step * recipe.solver.batch_size / len(self.train_images),
            step=step,
            seed=recipe.seed,
            config_hash=config_hash(recipe),
            parent=self.trunk.subject.sha256,
            library_versions=library_versions(),
        )


def open_job(recipe: Recipe, trunk: Trunk) -> Job:
    """Open the data and the device.

    Raises:
        UserError: If either cannot be used, or training and test categories differ.
    """
    device = resolve_device(recipe.training.device)
    check_precision(recipe.training.precision, device)
    data = recipe.data
    train_set = open_coco(data.train_annotations, data.train_images, data)
    test_set = open_coco(data.test_annotations, data.test_images, data)
    _check_categories(train_set, test_set)
    check_test_set(test_set)
    recipe, deviations = _with_local_norms(recipe, device)
    return Job(
        recipe=recipe,
        trunk=trunk,
        train_images=training_images(train_set),
        train_sha256=file_sha256(data.train_annotations),
        test_set=test_set,
        device=device,
        deviations=deviations,
    )


def _check_categories(train_set: CocoSet, test_set: CocoSet) -> None:
    """Refuse sets in which an id stands for different things."""
    train, test = train_set.category_names, test_set.category_names
    files = f"'{train_set.annotations_path}' and '{test_set.annotations_path}'"
    if train.keys() != test.keys():
        raise UserError(
            f"category ids of {files} differ: {sorted(train)} in training, {sorted(test)} in test"
        )
    renamed = [number for number in sorted(train) if train[number] != test[number]]
    shown = first_of([f"{number} ('{train[number]}', '{test[number]}')" for number in renamed])
    if {train[number] for number in renamed} & {test[number] for number in renamed}:
        raise UserError(
            f"category ids of {files} stand for different names: {shown}; number both files alike"
        )
    if renamed:
        logger.warning("categories of %s that are named differently: %s", files, shown)


def _with_local_norms(recipe: Recipe, device: torch.device) -> tuple[Recipe, tuple[str, ...]]:
    """Put BN in place of SyncBN where no processes can share statistics; say so once."""
    synchronised = "SyncBN" in (recipe.model.trunk_norm, recipe.model.head_norm)
    if not synchronised or (world_size() > 1 and device.type == "cuda"):
        return recipe, ()
    reason = "one process: BN" if world_size() == 1 else "processes without GPUs: each its own BN"
    deviation = f"{reason} in place of SyncBN"
    logger.info(deviation)
    norms = {
        key: "BN" if norm == "SyncBN" else norm
        for key, norm in (
            ("trunk_norm", recipe.model.trunk_norm),
            ("head_norm", recipe.model.head_norm),
        )
    }
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=norms)}), (deviation,)
