"""What every evaluation has in common: images, network, features and machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rsa_pretrain.components.settings import BackboneConfig, Stage
from rsa_pretrain.data.sets import is_pixels
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import Section, flatten
from rsa_pretrain.plumbing.device_names import DeviceName, Precision


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
