"""Prepare a job's images for detectron2.

detectron2's own COCO reader fails on custom sets that lack keys (masks, areas, crowd flags), its
order cannot be resumed, and its endless loader outlives the run. These entries are built from files
already checked, and equal the reader's on COCO.
"""

import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data.common import MapDataset
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BoxMode
from pycocotools import mask as mask_codec
from torch.utils.data import Dataset

from detection.coco.images import read_image
from detection.coco.masks import has_mask, polygons
from detection.coco.sets import Annotation, CocoSet, TrainingImage
from detection.feeding.batches import OrientedBatches
from detection.feeding.samples import ImageOrder, augmentation_seed
from detection.job.job import Job
from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.distributed import rank, world_size
from rsa_pretrain.plumbing.errors import UserError

MappedImage = dict[str, Any]
MappedBatches = Generator[list[MappedImage], None, None]


def training_entries(images: Sequence[TrainingImage]) -> list[MappedImage]:
    """Describe training images as detectron2 does; categories count from 0 without gaps."""
    return [
        {
            "file_name": str(image.path),
            "height": image.height,
            "width": image.width,
            "image_id": image.image_id,
            "annotations": [
                {
                    "iscrowd": 0,
                    "bbox": annotation["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": label - 1,
                    **_segmentation(annotation),
                }
                for annotation, label in zip(image.annotations, image.labels, strict=True)
            ],
        }
        for image in images
    ]


def evaluation_entries(coco: CocoSet) -> list[MappedImage]:
    """Describe every test image, without annotations."""
    return [
        {
            "file_name": str(coco.images_dir / image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
        }
        for image in coco.images
    ]


def training_batches(config: CfgNode, job: Job, start: int, num_workers: int) -> MappedBatches:
    """Yield this process's endless batches, augmented by detectron2.

    Images come in the torchvision engine's order, with one orientation per batch as in detectron2;
    an image's augmentation depends on the seed and its position alone.

    Args:
        config: The job's.
        job: The run.
        start: Index of the first batch.
        num_workers: Loader processes.
    """
    order = ImageOrder(len(job.train_images), job.recipe.seed)
    batches = OrientedBatches(
        lambda position: job.train_images[order[position]].is_wide,
        job.recipe.solver.batch_size // world_size(),
        range(start, sys.maxsize),
        rank=rank(),
        world_size=world_size(),
    )
    mapper = _ExplainingMapper(config, job.train_images[0].rules, is_train=True)
    stream = _TrainingEntries(training_entries(job.train_images), order, job.recipe.seed, mapper)
    return iterate(make_loader(stream, batches, num_workers, job.device, collate=list))


def evaluation_batches(config: CfgNode, job: Job) -> MappedBatches:
    """Yield this process's share of the test images, one per batch."""
    entries = evaluation_entries(job.test_set)
    batches = [[index] for index in range(rank(), len(entries), world_size())]
    mapper = _ExplainingMapper(config, job.test_set.rules, is_train=False)
    images = MapDataset(entries, mapper)
    workers = job.recipe.data.num_workers
    return iterate(make_loader(images, batches, workers, job.device, collate=list))


class _TrainingEntries(Dataset[MappedImage]):
    """The endless sequence of augmented entries."""

    def __init__(
        self, entries: list[MappedImage], order: ImageOrder, seed: int, mapper: DatasetMapper
    ) -> None:
        self._entries = entries
        self._order = order
        self._seed = seed
        self._mapper = mapper

    def __getitem__(self, position: int) -> MappedImage:
        # detectron2 augments with numpy's global generator.
        kept = np.random.get_state()  # noqa: NPY002
        np.random.seed(augmentation_seed(self._seed, position).generate_state(4))  # noqa: NPY002
        try:
            entry: MappedImage = self._mapper(self._entries[self._order[position]])
        finally:
            np.random.set_state(kept)  # noqa: NPY002
        return entry


class _ExplainingMapper(DatasetMapper):  # type: ignore[misc]
    """detectron2's mapper, made to read images like all engines and to name unusable ones."""

    def __init__(self, config: CfgNode, rules: ReadRules, *, is_train: bool) -> None:
        super().__init__(config, is_train=is_train)
        self._rules = rules

    def __call__(self, entry: MappedImage) -> Any:
        detection_utils.read_image = self._read  # its mapper accepts no reader
        try:
            return super().__call__(entry)
        except (OSError, SyntaxError, SizeMismatchError) as error:
            raise UserError(f"image '{entry['file_name']}' cannot be used: {error}") from None

    def _read(self, file_name: str, format: str) -> Any:
        image = read_image(Path(file_name), self._rules)
        return detection_utils.convert_PIL_to_numpy(image, format)


def _segmentation(annotation: Annotation) -> MappedImage:
    """Return an instance's mask under detectron2's key; empty if it has none."""
    segmentation: Any = annotation.get("segmentation")
    if not has_mask(segmentation):
        return {}
    if isinstance(segmentation, list):
        return {"segmentation": polygons(segmentation)}
    if isinstance(segmentation["counts"], list):
        return {"segmentation": mask_codec.frPyObjects(segmentation, *segmentation["size"])}
    return {"segmentation": segmentation}
