"""Read multi-label data sets: images with any number of classes each."""

import csv
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rsa_eval.evaluators.shared.held_out import published_rows
from rsa_eval.evaluators.shared.labelled_images import describe_images
from rsa_eval.evaluators.shared.multi_label_settings import MultiLabelConfig
from rsa_eval.evaluators.shared.published_lists import check_published
from rsa_eval.evaluators.shared.subsets import Rows
from rsa_pretrain.data.image_folder import ImageFiles
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_files import read_text

Truth = npt.NDArray[np.int8]

_VALUES = {"1": 1, "+1": 1, "-1": -1, "0": 0}


@dataclass(frozen=True)
class MultiLabelSet:
    """Images annotated with the presence of each class.

    Each occurring combination of classes is a class of ``images``, so code for single labels
    (features, their cache, fingerprints) handles these too.

    Attributes:
        images: Labelled by combination.
        combinations: 1 (present), -1 (absent) or 0 (ignored), int8 (K, C).
        class_names: Names of the C classes.
    """

    images: ImageSet
    combinations: Truth
    class_names: list[str]

    def truth(self, labels: Tensor) -> Truth:
        """Return the annotation of each class for these combinations, (N, C)."""
        found: Truth = self.combinations[labels.numpy()]
        return found

    @cached_property
    def every_truth(self) -> Truth:
        """The annotation of all images, (N, C)."""
        return self.truth(self.images.labels_of(range(len(self.images))))

    def select(self, rows: Rows) -> "MultiLabelSet":
        """Return the images with these indices."""
        return replace(self, images=self.images.select(rows))

    def sha256(self) -> str:
        """Return the SHA-256 of the annotation."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        digest.update(self.combinations[self.images.require_labels()].tobytes())
        return digest.hexdigest()


def one_against_rest(images: ImageSet) -> MultiLabelSet:
    """Convert single labels: an image's class is present, all others are absent."""
    return MultiLabelSet(images, one_hot(len(images.class_names)), images.class_names)


def one_hot(num_classes: int) -> Truth:
    """Return the truth of an image of each single class: 1 on the diagonal, else -1, (C, C)."""
    truth: Truth = (2 * np.eye(num_classes) - 1).astype(np.int8)
    return truth


def open_multi_label(
    data: DataConfig, config: MultiLabelConfig, split: Literal["train", "test"]
) -> MultiLabelSet:
    """Open one split of a multi-label set; no image is decoded yet.

    Args:
        data: Folder and number of images, drawn regardless of class.
        config: Layout and names of the splits.
        split: Split to open.

    Raises:
        UserError: If files are missing or malformed; says what is expected.
    """
    name = config.train_split if split == "train" else config.test_split
    found = _open_list(data, config, name)
    count = data.num_train_images if split == "train" else data.num_test_images
    if count is None:
        return found
    if count > len(found.images):
        raise UserError(f"asked for {count} images of {config.name}, which has {len(found.images)}")
    return replace(found, images=found.images.random_subset(count, data.subset_seed))


def open_multi_label_splits(
    data: DataConfig, config: MultiLabelConfig
) -> tuple[MultiLabelSet, MultiLabelSet]:
    """Open the training and the test images, annotated with the same classes.

    Args:
        data: Folder and numbers of images.
        config: Layout and names of the splits.

    Raises:
        UserError: As ``open_multi_label``, or if the classes differ.
    """
    train = open_multi_label(data, config, "train")
    test = open_multi_label(data, config, "test")
    _check_same_classes(config.name, train, test, "test")
    return train, test


def multi_label_validation(
    data: DataConfig, config: MultiLabelConfig, train: MultiLabelSet
) -> Rows | None:
    """Return the places of the published validation images among the training images.

    Args:
        data: Folder and number of training images.
        config: Layout and names of the splits.
        train: The training images.

    Returns:
        None if the set has no published validation images.

    Raises:
        UserError: If their list is missing, malformed, or not a part of the training images.
    """
    if config.validation_split is None:
        return None
    validation = _open_list(data, config, config.validation_split)
    _check_same_classes(config.name, train, validation, "validation")
    unknown = sorted(set(validation.images.keys()) - set(train.images.keys()))
    if unknown and data.num_train_images is None:
        raise UserError(
            f"{len(unknown)} images of the split '{config.validation_split}' of {config.name} are "
            f"not in '{config.train_split}': {first_of(unknown)}; the training images should "
            "include the validation images, which are held out only until C is chosen"
        )
    return published_rows(train.images, validation.images)


def describe_multi_label(train: MultiLabelSet, test: MultiLabelSet) -> dict[str, Any]:
    """Describe images and their annotation, for a record's details."""
    splits = {"train": train, "test": test}
    return {
        "images": describe_images(train.images, test.images),
        "annotation_sha256": {split: own.sha256() for split, own in splits.items()},
        "num_labels_left_out": {
            split: int((own.every_truth == 0).sum()) for split, own in splits.items()
        },
    }


def _open_list(data: DataConfig, config: MultiLabelConfig, name: str) -> MultiLabelSet:
    assert data.root is not None
    read = _read_voc if config.layout == "voc" else _read_csv
    files, truth, class_names = read(data.root, name)
    check_published(config.name, name, data.root, files, class_names)
    combinations, labels = np.unique(truth, axis=0, return_inverse=True)
    spelled = [" + ".join(np.array(class_names)[row == 1]) or "none" for row in combinations]
    sources = ImageFiles(data.root, files, data)
    images = ImageSet(config.name, sources, labels.reshape(-1).tolist(), spelled)
    return MultiLabelSet(images, combinations, class_names)


def _check_same_classes(name: str, train: MultiLabelSet, other: MultiLabelSet, split: str) -> None:
    if train.class_names != other.class_names:
        only_one = set(train.class_names) ^ set(other.class_names)
        what = first_of(sorted(only_one)) or "same names, different order"
        raise UserError(
            f"training and {split} images of {name} differ in classes: {what}; give both "
            "the same classes in the same order"
        )


def _read_voc(root: Path, split: str) -> tuple[list[str], Truth, list[str]]:
    folder = root / "ImageSets" / "Main"
    paths = sorted(folder.glob(f"*_{split}.txt"))
    if not paths:
        raise UserError(
            f"'{folder}' contains no CLASS_{split}.txt; data.root should be the folder VOC2007 of "
            "VOCdevkit, as 'rsa-detect download voc2007' unpacks VOCtrainval_06-Nov-2007.tar and "
            "VOCtest_06-Nov-2007.tar"
        )
    columns: list[list[int]] = []
    ids: list[str] = []
    for path in paths:
        rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
        for number, row in enumerate(rows, start=1):
            if len(row) != 2 or row[1] not in _VALUES:
                raise UserError(
                    f"'{path}', image {number}: expected an id and 1, -1 or 0, found "
                    f"'{' '.join(row)}'"
                )
        found = [row[0] for row in rows]
        if columns and found != ids:
            raise UserError(
                f"'{path}' lists different images than '{paths[0].name}' beside it; list the same "
                "images in the same order in both"
            )
        ids = found
        columns.append([_VALUES[row[1]] for row in rows])
    if not ids:
        raise UserError(f"'{paths[0]}' lists no images; expected lines of an id and 1, -1 or 0")
    names = [path.name.removesuffix(f"_{split}.txt") for path in paths]
    return [f"JPEGImages/{name}.jpg" for name in ids], np.array(columns, np.int8).T, names


def _read_csv(root: Path, split: str) -> tuple[list[str], Truth, list[str]]:
    path = root / f"{split}.csv"
    try:
        rows = [row for row in csv.reader(read_text(path).splitlines()) if row]
    except csv.Error as error:
        raise UserError(f"'{path}' is not a table of comma-separated values ({error})") from None
    if not rows or rows[0][0] != "image" or len(rows[0]) < 2:
        raise UserError(f"'{path}' should start with a line `image,CLASS,…`")
    class_names = rows[0][1:]
    if len(set(class_names)) < len(class_names):
        raise UserError(
            f"'{path}' names a class twice, expected each once: {', '.join(class_names)}"
        )
    if len(rows) == 1:
        raise UserError(f"'{path}' lists no images; expected one per line below the header")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(rows[0]) or not set(row[1:]) <= _VALUES.keys():
            raise UserError(
                f"'{path}', image {number}: expected a path and {len(class_names)} values of 1, -1 "
                f"or 0, found '{','.join(row)}'"
            )
    truth = np.array([[_VALUES[value] for value in row[1:]] for row in rows[1:]], np.int8)
    return [row[0] for row in rows[1:]], truth, class_names
