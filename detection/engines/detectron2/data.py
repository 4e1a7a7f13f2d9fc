"""A job's images as detectron2's registered data sets.

detectron2's own reader of COCO's format stumbles over what custom sets lack (masks, areas, crowd
marks). These entries are made from files already checked, and equal the reader's on COCO.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    detection_utils,
)
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BoxMode
from pycocotools import mask as mask_codec
from torch.utils.data import get_worker_info

from detection.coco import Annotation, CocoSet, TrainingImage
from detection.coco_eval import with_areas
from detection.detectron2_config import data_set_names
from detection.images import read_image
from detection.job import Job
from detection.masks import has_mask, polygons
from rsa_pretrain.errors import UserError
from rsa_pretrain.read_rules import ReadRules
from rsa_pretrain.stop_signal import leave_signals_to_main_process

Entry = dict[str, Any]


def register_train(job: Job) -> None:
    """Register the job's training images under the name its config gives them."""
    name, _ = data_set_names(job.recipe)
    _register(name, training_entries(job.train_images), job.test_set)


def register_test(job: Job, annotations: Path) -> None:
    """Register the job's test images under the name its config gives them.

    Args:
        job: The run.
        annotations: Receives the test annotations, with what the evaluation needs filled in.
    """
    _, name = data_set_names(job.recipe)
    annotations.write_text(json.dumps(with_areas(job.test_set.tree)), encoding="utf-8")
    _register(name, evaluation_entries(job.test_set), job.test_set)
    MetadataCatalog.get(name).set(evaluator_type="coco", json_file=str(annotations))


def training_entries(images: Sequence[TrainingImage]) -> list[Entry]:
    """Describe training images as detectron2 does; categories count from 0 without gaps."""
    return [
        {
            "file_name": str(image.path),
            "height": image.height,
            "width": image.width,
            "image_id": image.annotations[0]["image_id"],
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


def evaluation_entries(coco: CocoSet) -> list[Entry]:
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


def train_loader(config: CfgNode) -> Any:
    """Return detectron2's endless loader of augmented training batches."""
    return build_detection_train_loader(config, mapper=_ExplainingMapper(config, is_train=True))


def evaluation_loader(config: CfgNode) -> Any:
    """Return detectron2's loader of every test image once, shared between the processes."""
    (name,) = config.DATASETS.TEST
    mapper = _ExplainingMapper(config, is_train=False)
    return build_detection_test_loader(config, name, mapper=mapper)


@contextmanager
def explained_worker_errors() -> Iterator[None]:
    """Raise a loader process's error without the traceback that torch puts into its message."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None


class _ExplainingMapper(DatasetMapper):  # type: ignore[misc]
    """detectron2's mapper, which reads images as all engines do; one it cannot use is named."""

    def __init__(self, config: CfgNode, *, is_train: bool) -> None:
        super().__init__(config, is_train=is_train)
        (name,) = config.DATASETS.TRAIN if is_train else config.DATASETS.TEST
        self._rules: ReadRules = MetadataCatalog.get(name).read_rules

    def __call__(self, entry: Entry) -> Any:
        if get_worker_info() is not None:
            leave_signals_to_main_process(0)  # detectron2's loader takes no function of ours
        detection_utils.read_image = self._read  # nor its mapper a reader
        try:
            return super().__call__(entry)
        except (OSError, SyntaxError, SizeMismatchError) as error:
            raise UserError(f"image '{entry['file_name']}' cannot be used: {error}") from None

    def _read(self, file_name: str, format: str) -> Any:
        image = read_image(Path(file_name), self._rules)
        return detection_utils.convert_PIL_to_numpy(image, format)


def _register(name: str, entries: list[Entry], categories: CocoSet) -> None:
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: entries)
    ids = categories.category_ids
    names = categories.category_names
    MetadataCatalog.get(name).set(
        read_rules=categories.rules,
        thing_classes=[names[category] for category in ids],
        thing_dataset_id_to_contiguous_id={category: index for index, category in enumerate(ids)},
    )


def _segmentation(annotation: Annotation) -> Entry:
    """Return an instance's mask under detectron2's key; empty if it has none."""
    segmentation: Any = annotation.get("segmentation")
    if not has_mask(segmentation):
        return {}
    if isinstance(segmentation, list):
        return {"segmentation": polygons(segmentation)}
    if isinstance(segmentation["counts"], list):
        return {"segmentation": mask_codec.frPyObjects(segmentation, *segmentation["size"])}
    return {"segmentation": segmentation}
