"""Settings of evaluators that take multi-label data sets, such as PASCAL VOC."""

from typing import Literal, Self

from pydantic import model_validator

from rsa_eval.config import EvaluationConfig
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import Section


class MultiLabelConfig(Section):
    """Labels of a multi-label data set whose images are in `data.root`."""

    name: str
    """Name of the data set in records and tables. voc2007 is PASCAL's, whose published numbers of
    images and classes its lists must have."""
    layout: Literal["voc", "csv"]
    """voc: ImageSets/Main/CLASS_SPLIT.txt, lines of an image's id and 1, -1 or 0, and
    JPEGImages/ID.jpg; csv: SPLIT.csv, header `image,CLASS,…`, then an image's path and 1, -1 or 0
    for each class. 0 (VOC's difficult) excludes the image for this class only."""
    train_split: str = "trainval"
    """SPLIT of the training images."""
    test_split: str = "test"
    """SPLIT of the test images."""
    val_split: str | None = None
    """SPLIT that lists those training images on which logistic regression (protocol=kornblith)
    chooses C and fine-tuning chooses rate and decay. null: val of layout voc; of layout csv, the
    share `search.held_out_percent` or `grid.held_out_percent` of all training images is drawn."""

    @property
    def validation_split(self) -> str | None:
        """Published SPLIT of the training images that choose settings; None if there is none."""
        return "val" if self.val_split is None and self.layout == "voc" else self.val_split


# Settings of a DataConfig for class folders, which sets with other annotation lack.
_OF_FOLDERS = ("train_dir", "test_dir", "on_broken")


def refuse_class_folders(data: DataConfig, section: str) -> None:
    """Refuse settings of class folders for a set whose annotation is elsewhere.

    Args:
        data: The images' settings.
        section: Settings of the annotation.

    Raises:
        ValueError: If the set is no ``imagefolder``, or names the folders of its splits.
    """
    if data.name != "imagefolder":
        raise ValueError(
            f"{section} needs data.name=imagefolder and data.root, the folder of the "
            f"{_NAMES[section]} set; found '{data.name}'"
        )
    for key in _OF_FOLDERS:
        if getattr(data, key) != DataConfig.model_fields[key].default:
            raise ValueError(f"data.{key} has no meaning with {section}; leave it out")


_NAMES = {"multi_label": "multi-label", "masks": "annotated"}


class WithMultiLabel(EvaluationConfig):
    """An evaluation of images with one class each, or of a multi-label data set."""

    multi_label: MultiLabelConfig | None = None
    """Labels of a multi-label data set, with data.name=imagefolder; null: each image has one
    class."""

    @property
    def data_set(self) -> str:
        """The data set's name in records."""
        return self.data.name if self.multi_label is None else self.multi_label.name

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.multi_label is None:
            return self
        refuse_class_folders(self.data, "multi_label")
        return self
