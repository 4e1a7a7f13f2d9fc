"""What every evaluation has in common: images, network, features and machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rsa_pretrain.config import BackboneConfig, DeviceName, Precision, Range, Stage, WeakConfig
from rsa_pretrain.data.sets import is_pixels
from rsa_pretrain.data.settings import DataConfig, Probability
from rsa_pretrain.plumbing.config.files import Section, flatten


class RandomBackboneConfig(BackboneConfig):
    """The network of --random-init."""

    zero_init_residual: bool = False
    """Start each residual branch at zero. Pretraining does; but left untrained, such a network
    sees little more than every 32nd pixel, a baseline that is too easily beaten."""


class EvaluationConfig(Section):
    """What every evaluator needs."""

    protocol: str
    """The published protocol this run follows; departures from it are listed in the record."""
    data: DataConfig
    backbone: RandomBackboneConfig | None = None
    """Network of --random-init; a checkpoint names its own, and this must agree with it."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds a random backbone, and a probe's initialisation, data order and augmentation."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images per forward pass where features are extracted."""
    layers: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("layer4",)
    """Stages whose outputs, averaged over the image, are the features; several are concatenated."""
    feature_dtype: Literal["fp32", "fp16"] = "fp32"
    """Type the features are kept in; fp16 halves the cache and rounds to three decimal digits."""
    cache_dir: Path | None = None
    """Folder that keeps extracted features for later evaluations; all processes must see it.
    null: they are extracted anew, and held in memory."""
    precision: Precision = "fp32"
    """Autocast type of the backbone."""
    device: DeviceName = "auto"
    """auto takes a GPU where there is one."""

    @property
    def data_set(self) -> str:
        """The data set's name in records."""
        return self.data.name

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must differ, found {list(self.layers)}")
        return self


class Subset(Section):
    """One way to take few labels; exactly one of its fields is set."""

    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """This share of each class, at least one image of it; in all, the share of the whole."""
    per_class: Annotated[int, Field(ge=1)] | None = None
    """This many images of each class."""
    list_file: Path | None = None
    """The images a text file names, one a line, as NAME or CLASS/NAME (SimCLR's 1percent.txt holds
    lines like n01440764_10026.JPEG)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(value is not None for value in (self.percent, self.per_class, self.list_file)) != 1:
            raise ValueError("a subset takes exactly one of percent, per_class and list_file")
        return self

    @property
    def name(self) -> str:
        """The subset as metrics name it: ``1pct``, ``5per_class``, or the list's file name."""
        if self.list_file is not None:
            return f"list_{self.list_file.stem}"
        return f"{self.per_class}per_class" if self.percent is None else f"{self.percent:g}pct"

    @property
    def is_drawn(self) -> bool:
        """Whether another seed gives other images."""
        return self.list_file is None


class TrainingOnViews(Section):
    """What trainings on freshly cropped images have in common."""

    epochs: Annotated[int, Field(ge=1)]
    """Passes over the training images."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Epochs at whose start the rate is multiplied by gamma."""
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
        if self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"milestones {list(self.milestones)} must lie below epochs {self.epochs}; set both"
            )
        _ = self.train_view  # checks the ranges
        return self


# Settings that decide where and how fast an evaluation runs, and not what comes out.
RESULT_NEUTRAL_KEYS = frozenset(
    {
        "cache_dir",
        "device",
        "data.root",
        "data.num_workers",
        "data.max_megapixels",
        "save_every_minutes",
    }
)

_TURNING = "data.exif_orientation"
# What evaluations did whose records lack these settings.
_BEFORE_THERE_WAS_A_CHOICE = {"data.eval_interpolation": "bilinear", "split": "test"}


def result_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide a result, by dotted key.

    Args:
        tree: An evaluation's settings as plain values.
    """
    found = flatten(tree)
    # Detection turned photographs as EXIF says, evaluations did not.
    turned = {_TURNING: "data.train_annotations" in found}
    settings = _BEFORE_THERE_WAS_A_CHOICE | turned | found
    neutral = RESULT_NEUTRAL_KEYS
    if is_pixels(settings.get("data.name")):
        neutral = neutral | {_TURNING}
    return {key: value for key, value in settings.items() if key not in neutral}
