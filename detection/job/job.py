"""Prepare an engine's input: the recipe, the backbone and the data, all checked."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detection.coco.categories import check_same_categories
from detection.coco.evaluation import IOU_TYPES
from detection.coco.opening import annotations_sha256, open_set
from detection.coco.sets import (
    Annotation,
    CocoSet,
    TrainingImage,
    check_objects,
    mask_gap,
    training_images,
    without_mask,
)
from detection.job.detector_card import CARD_KEY, make_card
from detection.job.trunk import Trunk
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import config_hash
from rsa_pretrain.plumbing.device import check_precision, resolve_device
from rsa_pretrain.plumbing.distributed import world_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import FORMAT_VERSION
from rsa_pretrain.weights.metadata import BackboneMetadata, library_versions

_log = logging.getLogger(__name__)

METHOD = "mask_rcnn"
_NORM_KEYS = ("trunk_norm", "head_norm", "pyramid_norm")


@dataclass(frozen=True)
class Job:
    """One run, ready to start."""

    recipe: Recipe
    """Adapted: only norms that these processes can compute, and heads that the training instances
    can train."""
    trunk: Trunk
    train_images: list[TrainingImage]
    train_sha256: str
    """Hash of the training annotations; a resumed run must have the same."""
    test_sha256: str
    """Hash of the test annotations."""
    test_set: CocoSet
    iou_types: tuple[str, ...]
    """Evaluated IoU types: ``bbox``, and ``segm`` if masks are predicted and every test annotation
    has one."""
    device: torch.device
    deviations: tuple[str, ...]
    """Departures from the recipe as written."""

    @property
    def num_classes(self) -> int:
        """Categories, without the background."""
        return len(self.test_set.category_ids)

    @property
    def notes(self) -> dict[str, str]:
        """Notes stored beside the metadata in every file of the detector's weights."""
        return {CARD_KEY: make_card(self.recipe, self.test_set.category_names).model_dump_json()}

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

    def check_same_start(self, trunk_sha256: str | None, train_sha256: str | None) -> None:
        """Compare a checkpoint's pretrained backbone and training annotations with the run's.

        Raises:
            UserError: If they are others.
        """
        run_dir, given = self.recipe.output_dir, self.trunk.subject.sha256
        if trunk_sha256 != given:
            before, now = (
                "random weights" if sha256 is None else f"the backbone with SHA-256 {sha256}"
                for sha256 in (trunk_sha256, given)
            )
            raise UserError(
                f"'{run_dir}' started from {before}, this command gives {now}; give the original "
                "or set another output_dir"
            )
        if train_sha256 != self.train_sha256:
            raise UserError(
                f"'{run_dir}' was trained on annotations with SHA-256 {train_sha256}, "
                f"{self.recipe.data.source_of('train')} has {self.train_sha256}; give the "
                "original or set another output_dir"
            )


def open_job(recipe: Recipe, trunk: Trunk, departures: Sequence[str] = ()) -> Job:
    """Open the data and the device.

    Args:
        recipe: The run.
        trunk: Initial weights of the detector's backbone.
        departures: Departures already made from the recipe as written.

    Raises:
        UserError: If either cannot be used, training and test categories differ, or the processes
            cannot share a batch evenly.
    """
    if recipe.solver.batch_size % world_size():
        raise UserError(
            f"solver.batch_size {recipe.solver.batch_size} is not a multiple of the "
            f"{world_size()} processes; change it or their number"
        )
    device = resolve_device(recipe.training.device)
    check_precision(recipe.training.precision, device)
    data = recipe.data
    train_set, test_set = open_set(data, "train"), open_set(data, "test")
    check_same_categories(
        train_set.category_names,
        test_set.category_names,
        data.source_of("train"),
        data.source_of("test"),
    )
    check_objects(test_set.annotations_path, test_set.tree)
    train_images = training_images(train_set, keep_empty=data.keep_empty_images)
    recipe, norms = _with_local_norms(recipe, device)
    recipe, heads = with_trainable_heads(
        recipe, [entry for image in train_images for entry in image.annotations]
    )
    iou_types, unevaluated = _iou_types(recipe, test_set)
    return Job(
        recipe=recipe,
        trunk=trunk,
        train_images=train_images,
        train_sha256=annotations_sha256(data, "train"),
        test_sha256=annotations_sha256(data, "test"),
        test_set=test_set,
        iou_types=iou_types,
        device=device,
        deviations=(
            *(*departures, *norms, *heads, *unevaluated),
            *(f"training annotations: {line}" for line in train_set.repairs),
            *(f"test annotations: {line}" for line in test_set.repairs),
        ),
    )


def with_trainable_heads(
    recipe: Recipe, instances: Sequence[Annotation]
) -> tuple[Recipe, tuple[str, ...]]:
    """Remove the mask head if no training instance has a mask; report instances without masks.

    Raises:
        UserError: If some instances have masks and engine detectron2 is asked to train on them: it
            needs masks on all or none.
    """
    lacking = len(without_mask(instances))
    if not recipe.model.mask_head or not lacking:
        return recipe, ()
    if lacking == len(instances):
        deviation = "no training instance has a mask: boxes alone are trained, without a mask head"
        model = recipe.model.model_copy(update={"mask_head": False})
        recipe = recipe.model_copy(update={"model": model})
    else:
        deviation = (
            f"{lacking:,} of {len(instances):,} training instances have no mask and train boxes "
            "alone"
        )
        if recipe.engine == "detectron2":
            raise UserError(
                f"{deviation}, which detectron2 cannot: use engine=torchvision, or "
                "model.mask_head=false for boxes of all"
            )
    _log.warning(deviation)
    return recipe, (deviation,)


def _iou_types(recipe: Recipe, test_set: CocoSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the IoU types that can be evaluated, and why masks cannot."""
    if not recipe.model.mask_head:
        return ("bbox",), ()
    gap = mask_gap(test_set.tree)
    if gap is None:
        return IOU_TYPES, ()
    deviation = f"masks are not evaluated: of the test set, {gap}"
    _log.warning(deviation)
    return ("bbox",), (deviation,)


def _with_local_norms(recipe: Recipe, device: torch.device) -> tuple[Recipe, tuple[str, ...]]:
    """Replace SyncBN by BN if no processes can share statistics, and report it once."""
    norms = {key: getattr(recipe.model, key) for key in _NORM_KEYS}
    synchronised = "SyncBN" in norms.values()
    if not synchronised or (world_size() > 1 and device.type == "cuda"):
        return recipe, ()
    reason = "one process: BN" if world_size() == 1 else "processes without GPUs: each its own BN"
    deviation = f"{reason} in place of SyncBN"
    _log.info(deviation)
    local = {key: "BN" if norm == "SyncBN" else norm for key, norm in norms.items()}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=local)}), (deviation,)
