"""Settings of few-label subsets and of training on augmented images."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from rsa_pretrain.data.settings import Probability
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.views.settings import Range, WeakConfig


class Subset(Section):
    """A subset of the labelled images; exactly one field is set."""

    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """Percentage of each class, at least one image; in total, this percentage of all images."""
    per_class: Annotated[int, Field(ge=1)] | None = None
    """Number of images per class."""
    list_file: Path | None = None
    """Text file that names the images, one per line, as NAME or CLASS/NAME (SimCLR's 1percent.txt
    has lines like n01440764_10026.JPEG)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        ways = ("percent", "per_class", "list_file")
        found = [name for name in ways if getattr(self, name) is not None]
        if len(found) != 1:
            raise ValueError(
                "a subset takes exactly one of percent, per_class and list_file, found "
                f"{' and '.join(found) or 'none'}"
            )
        return self

    @property
    def name(self) -> str:
        """The subset as metrics name it: ``1pct``, ``5per_class``, or the list's file name."""
        if self.list_file is not None:
            return f"list_{self.list_file.stem}"
        return f"{self.per_class}per_class" if self.percent is None else f"{self.percent:g}pct"

    @property
    def is_drawn(self) -> bool:
        """True if another seed gives other images."""
        return self.list_file is None and self.percent != 100


class TrainingOnViews(Section):
    """Settings common to classifiers trained on freshly augmented images."""

    epochs: Annotated[int, Field(ge=1)] | None
    """Passes over the training images."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Epochs at whose start the learning rate is multiplied by gamma."""
    crop_scale: Range = (0.08, 1.0)
    """Area of the random resized crop as a share of the image; not used on cached features."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, width over height."""
    flip_probability: Probability = 0.5
    """Horizontal flip."""

    @property
    def train_view(self) -> WeakConfig:
        """The augmentation."""
        return WeakConfig(
            crop_scale=self.crop_scale,
            crop_ratio=self.crop_ratio,
            flip_probability=self.flip_probability,
        )

    @model_validator(mode="after")
    def _check_view_and_milestones(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, found {list(self.milestones)}")
        if self.milestones and self.epochs is None:
            raise ValueError(
                f"milestones {list(self.milestones)} are epochs, and epochs is null; set "
                "milestones=[]"
            )
        if self.epochs is not None and self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"milestones {list(self.milestones)} must be below epochs {self.epochs}; set both"
            )
        _ = self.train_view  # checks the ranges
        return self
