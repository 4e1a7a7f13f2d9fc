"""Open the images that a record names: its test, training and pretraining images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsa_eval.audit.entries import NamedRecord
from rsa_eval.evaluators.segmentation.settings import MasksConfig
from rsa_eval.evaluators.shared.multi_label_settings import MultiLabelConfig
from rsa_eval.records.image_sets import image_facts
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import is_present, open_images
from rsa_pretrain.data.sets import is_pixels
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

ImageRole = Literal["test", "train", "pretrain"]
ROLE_NAMES: dict[ImageRole, str] = {
    "test": "test images",
    "train": "training images",
    "pretrain": "pretraining images",
}


TRAINING_ROLES: tuple[ImageRole, ...] = ("train", "pretrain")


@dataclass(frozen=True)
class OpenedSet:
    """Images with the SHA-256 that identifies them in records."""

    images: ImageSet
    fingerprint: str


class OpenSets:
    """Opens sets of images, each once.

    Args:
        data_root: ``data.root`` of images that are not at theirs; None if there is none.
    """

    def __init__(self, data_root: Path | None) -> None:
        self._data_root = data_root
        self._opened: dict[str, OpenedSet | UserError] = {}

    def open(self, entry: NamedRecord, role: ImageRole) -> OpenedSet | None:
        """Open a record's images.

        Returns:
            None if the record has none of this role.

        Raises:
            UserError: If they cannot be read here, or differ from those that the record names.
        """
        record = entry.record
        if record.kind == "detection":
            raise UserError("the images of a detector's record are those of annotation files")
        tree = _data_of(entry, role)
        if tree is None:
            return None
        annotated = {} if role == "pretrain" else _annotation(record.config)
        key = json.dumps([tree, annotated, role], sort_keys=True, default=str)
        if key not in self._opened:
            try:
                images = self._read(tree, annotated, role)
                self._opened[key] = OpenedSet(images, images.fingerprint())
            except UserError as error:
                self._opened[key] = error
        found = self._opened[key]
        if isinstance(found, UserError):
            raise found
        facts = None if role == "pretrain" else image_facts(record, role)
        if facts is not None and facts["sha256"] != found.fingerprint:
            raise UserError(
                f"the {len(found.images):,} images found are not the {facts['count']:,} that the "
                "record saw: their fingerprint differs"
            )
        return found

    def _read(
        self, tree: dict[str, Any], annotated: Mapping[str, Any], role: ImageRole
    ) -> ImageSet:
        config = parse_tree(DataConfig, tree, "data")
        if config.root is not None and not is_present(config) and self._data_root is not None:
            below = config.model_copy(update={"root": self._data_root / config.root.name})
            moved = config.model_copy(update={"root": self._data_root})
            config = below if is_present(below) else moved
        if role != "pretrain" and "multi_label" in annotated:
            from rsa_eval.evaluators.shared.multi_label import open_multi_label

            labels = parse_tree(MultiLabelConfig, annotated["multi_label"], "multi_label")
            return open_multi_label(config, labels, role).images
        if role != "pretrain" and "masks" in annotated:
            from rsa_eval.evaluators.segmentation.sets import open_masked

            masks = parse_tree(MasksConfig, annotated["masks"], "masks")
            return open_masked(config, masks, role).images
        images = open_images(config, role)
        if not isinstance(images, ImageSet):
            raise UserError("they are a stream of tar shards, whose images have no fixed order")
        return images


def _annotation(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of annotation that is not in class folders."""
    keys = ("multi_label", "masks")
    return {key: config[key] for key in keys if config.get(key) is not None}


def _data_of(entry: NamedRecord, role: ImageRole) -> dict[str, Any] | None:
    """Return the settings of a record's images, without a second check of each file."""
    record = entry.record
    config: Mapping[str, Any] | None = record.config
    if role == "pretrain":
        config = record.model.pretraining
        if config is None and record.model.metadata is not None:
            raise UserError("the record does not name them")
    if config is None:
        return None
    data = config.get("data")
    if not isinstance(data, dict):
        raise UserError("the record does not name them")
    if role == "test" and (record.config.get("leave_one_out") or _split(record.config) == "train"):
        return None  # the training images are the test images
    tree = dict(data)
    if "exif_orientation" not in tree and not is_pixels(tree.get("name")):
        tree["exif_orientation"] = False  # as images were read before there was a choice
    if tree.get("on_broken", "error") == "error":
        tree["on_broken"] = "unchecked"
    return tree


def _split(config: Mapping[str, Any]) -> Any:
    return config.get("split", "test")
