"""Settings of a detection run's images: COCO-format files, or PASCAL VOC's folders."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from rsa_pretrain.data.read_settings import ReadRules

SetRole = Literal["train", "test"]

# In the devkit's order, which is that of their numbers.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


class DetectionSetConfig(ReadRules):
    """Settings of any set of annotated images."""

    name: str
    """Name of the data set in results."""
    keep_empty_images: bool = False
    """Also train on images without annotations, as background; images with only crowds stay out."""
    num_workers: Annotated[int, Field(ge=0)] = 4
    """Loader processes (0 loads in the main process); the images do not depend on it."""


class CocoDataConfig(DetectionSetConfig):
    """COCO-format annotations and the folders of their images."""

    PLACES: ClassVar = ("train_annotations", "train_images", "test_annotations", "test_images")
    """Settings that say where files are and do not change a result."""

    format: Literal["coco"] = "coco"
    """coco: COCO-format JSON; voc: PASCAL VOC's folders. Left out: coco."""
    train_annotations: Path
    """COCO-format JSON of the training images."""
    train_images: Path
    """Folder of the training images."""
    test_annotations: Path
    """COCO-format JSON of the test images; its categories are those of training."""
    test_images: Path
    """Folder of the test images."""

    def source_of(self, role: SetRole) -> str:
        """Name the annotations of one set, for messages."""
        return f"'{self.train_annotations if role == 'train' else self.test_annotations}'"


class VocDataConfig(DetectionSetConfig):
    """Images annotated in PASCAL VOC's format, as its development kit lays them out.

    The set YEAR/SET is the list VOCYEAR/ImageSets/Main/SET.txt below the root, with
    VOCYEAR/Annotations/*.xml and VOCYEAR/JPEGImages/*.jpg.
    """

    PLACES: ClassVar = ("root",)
    """Settings that say where files are and do not change a result."""

    format: Literal["voc"]
    """coco: COCO-format JSON; voc: PASCAL VOC's folders. Left out: coco."""
    root: Path
    """The folder VOCdevkit."""
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    """Sets to train on, such as [2007/trainval, 2012/trainval]."""
    test: Annotated[tuple[str, ...], Field(min_length=1)]
    """Sets to test on, such as [2007/test]."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] = VOC_CLASSES
    """Names of the classes in the order of their numbers, for sets of other classes than VOC's."""

    def source_of(self, role: SetRole) -> str:
        """Name the annotations of one set, for messages."""
        return f"'{self.root}' ({', '.join(self.sets_of(role))})"

    def sets_of(self, role: SetRole) -> tuple[str, ...]:
        """Return the lists of one set."""
        return self.train if role == "train" else self.test

    @field_validator("train", "test", "classes", mode="before")
    @classmethod
    def _check_list(cls, given: Any) -> Any:
        if isinstance(given, str):
            raise ValueError(f"expected a list such as [{given}]")
        return given

    @field_validator("train", "test")
    @classmethod
    def _check_sets(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        for name in sets:
            year, _, image_set = name.partition("/")
            if not year or not image_set or "/" in image_set or {".."} & {year, image_set}:
                raise ValueError("expected sets such as 2007/trainval")
        if len(set(sets)) < len(sets):
            raise ValueError("a set is listed twice")
        return sets

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes) or not all(name.strip() == name for name in classes):
            raise ValueError("class names must be distinct and without surrounding blanks")
        return classes


def _with_format(given: Any) -> Any:
    """Take a section that does not state its format for COCO's, the only one of older files."""
    if not isinstance(given, dict) or "format" in given:
        return given
    if {"root", "train", "test"} <= given.keys():
        raise ValueError("root, train and test are settings of PASCAL VOC's: add data.format=voc")
    return {"format": "coco", **given}


DetectionData = Annotated[
    CocoDataConfig | VocDataConfig,
    Field(discriminator="format"),
    BeforeValidator(_with_format),
]
"""The section ``data`` of a detection run."""
