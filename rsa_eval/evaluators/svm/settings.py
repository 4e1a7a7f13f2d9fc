"""Settings of linear support vector machines on frozen features."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import Section


class MachineConfig(Section):
    """One machine per class, squared hinge loss; the defaults are Goyal et al.'s."""

    costs: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        *(0.5**power for power in range(19, 6, -1)),
        0.01,
        *(0.5**power for power in (6, 5, 4)),
        0.1,
    )
    """Values of C to try, in increasing order; one is chosen per class."""
    folds: Annotated[int, Field(ge=2)] = 3
    """Cross-validation folds of the training images, for choosing C."""
    positive_weight: Annotated[float, Field(gt=0)] = 2.0
    """Weight of a positive image's loss; that of a negative one is 1."""
    max_iterations: Annotated[int, Field(ge=1)] = 2000
    """Most liblinear iterations per fit."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """liblinear's tolerance of the dual problem."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.costs) != sorted(set(self.costs)):
            raise ValueError(f"costs must increase, found {list(self.costs)}")
        return self


class MultiLabelConfig(Section):
    """Labels of a multi-label data set whose images are in `data.root`."""

    name: str
    """Name of the data set in records and tables, for example voc2007."""
    layout: Literal["voc", "csv"]
    """voc: ImageSets/Main/CLASS_SPLIT.txt, lines of an image's id and 1, -1 or 0, and
    JPEGImages/ID.jpg; csv: SPLIT.csv, header `image,CLASS,…`, then an image's path and 1, -1 or 0
    for each class. 0 (VOC's difficult) excludes the image for this class only."""
    train_split: str = "trainval"
    """SPLIT of the training images."""
    test_split: str = "test"
    """SPLIT of the test images."""


# Settings of a DataConfig for class folders, which a multi-label data set lacks.
_OF_FOLDERS = ("train_dir", "test_dir", "on_broken")


class SVMOptions(Section):
    """The machines, on features of any origin."""

    protocol: Literal["goyal2019"] = "goyal2019"
    """Goyal et al. 2019's on VOC2007, with only the averaged features of the last stage, as later
    papers report it; features are divided by their norm plus 1e-5."""
    machine: MachineConfig = MachineConfig()


class SVMConfig(SVMOptions, EvaluationConfig):
    """Linear support vector machines, one per class, scored by average precision."""

    multi_label: MultiLabelConfig | None = None
    """Labels of a multi-label data set, with data.name=imagefolder; null: the data set's classes,
    each against the rest."""

    @property
    def data_set(self) -> str:
        """The data set's name in records."""
        return self.data.name if self.multi_label is None else self.multi_label.name

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if self.multi_label is None:
            return self
        if self.data.name != "imagefolder":
            raise ValueError(
                f"multi_label needs data.name=imagefolder and data.root, the folder of the "
                f"multi-label set; found '{self.data.name}'"
            )
        for key in _OF_FOLDERS:
            if getattr(self.data, key) != DataConfig.model_fields[key].default:
                raise ValueError(f"data.{key} has no meaning with multi_label; leave it out")
        return self


class GivenSVMConfig(SVMOptions, GivenFeaturesConfig):
    """The same on given features, each class against the rest."""
