"""Open the training or the test set of a run, whatever its format."""

from pathlib import Path

from detection.coco.data_settings import CocoDataConfig, DetectionData, SetRole
from detection.coco.sets import CocoSet, FaultySet, check_images, read_faulty_coco
from detection.coco.voc.reading import annotations_path, read_voc, voc_sha256
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.weights.checkpoint import file_sha256


def open_set(data: DetectionData, role: SetRole, rules: ReadRules | None = None) -> CocoSet:
    """Read the annotations of a set and check them and that its images are there.

    Args:
        data: A run's section ``data``.
        role: The set.
        rules: How to read the images; None takes those of the section.

    Raises:
        UserError: If an entry is faulty, or a file is missing or unreadable.
    """
    coco = read_sound(data, role, rules)
    check_images(coco)
    return coco


def read_sound(data: DetectionData, role: SetRole, rules: ReadRules | None = None) -> CocoSet:
    """Read the annotations of a set and check them, without looking for its images.

    Raises:
        UserError: If an entry is faulty, or an annotation file missing or unreadable.
    """
    return read_faulty(data, role, rules or data).sound()


def read_faulty(data: DetectionData, role: SetRole, rules: ReadRules) -> FaultySet:
    """Read the annotations of a set as far as possible, without looking for its images.

    Raises:
        UserError: If there is nothing to read, or not in the stated format.
    """
    if isinstance(data, CocoDataConfig):
        return read_faulty_coco(*places_of(data, role), rules, f"data.{role}_images")
    return read_voc(data, role, rules)


def places_of(data: DetectionData, role: SetRole) -> tuple[Path, Path]:
    """Return the path that stands for a set's annotations, and the folder of its images."""
    if not isinstance(data, CocoDataConfig):
        return annotations_path(data, role), data.root
    if role == "train":
        return data.train_annotations, data.train_images
    return data.test_annotations, data.test_images


def annotations_sha256(data: DetectionData, role: SetRole) -> str:
    """Return the SHA-256 of a set's annotations: of the file, or of all of VOC's.

    Raises:
        UserError: If they cannot be read.
    """
    if isinstance(data, CocoDataConfig):
        return file_sha256(places_of(data, role)[0])
    return voc_sha256(data, role)
