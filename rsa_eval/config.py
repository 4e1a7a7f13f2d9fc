"""Settings common to all evaluations: images, network, features and device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rsa_pretrain.components.settings import BackboneConfig, Stage
from rsa_pretrain.data.sets import is_pixels
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import Section, flatten
from rsa_pretrain.plumbing.device_names import DeviceName, Precision

TokenPooling = Literal["default", "cls", "mean", "cls+mean"]


class RandomBackboneConfig(BackboneConfig):
    """The network of --random-init."""

    zero_init_residual: bool = False
    """Start each residual branch at zero, as pretraining does. Untrained, such a network sees
    little more than every 32nd pixel, which makes the baseline too easy to beat."""


class EvaluationConfig(Section):
    """Settings common to all evaluators."""

    protocol: str
    """The published protocol this run follows; the record lists departures from it."""
    data: DataConfig
    backbone: RandomBackboneConfig | None = None
    """Network of --random-init; for a checkpoint it must match the checkpoint's network."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds a random backbone, and a probe's initialisation, data order and augmentation."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images per forward pass when extracting features. null: 256 on a CPU; on a GPU as many, up to
    2048, as keep the network's largest feature map within 1 GiB: 2048 for a ResNet-18 at 32 pixels,
    334 for a ResNet-50 at 224."""
    layers: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("layer4",)
    """Stages of a ResNet whose outputs, averaged over the image, are the features; several are
    concatenated."""
    tokens: TokenPooling = "default"
    """Features of a vision transformer of another library. cls: its class token; mean: the mean of
    its patches' tokens; cls+mean: both; default: what the library gives its classifier (hf: the
    class token). Other networks have no tokens; a function's maps are averaged by mean."""
    blocks: Annotated[int, Field(ge=1)] = 1
    """Concatenate the tokens of this many last blocks, each under the final norm; of cls+mean only
    the last block's patches count, as for DINOv2's linear classifiers."""
    feature_dtype: Literal["fp32", "fp16"] = "fp32"
    """Storage type of the features; fp16 halves the cache and rounds to three decimal digits."""
    cache_dir: Path | None = None
    """Folder that caches extracted features for later evaluations; all processes must see it.
    null: extract them for this evaluation and keep them in memory."""
    precision: Precision = "fp32"
    """Autocast type of the backbone."""
    device: DeviceName = "auto"
    """auto: a GPU if there is one."""

    @property
    def data_set(self) -> str:
        """The data set's name in records."""
        return self.data.name

    @property
    def images_in_file_names(self) -> str:
        """The name of the images in default file names of records."""
        return self.data.name

    @property
    def recorded_protocol(self) -> str:
        """The protocol's name in records."""
        return self.protocol

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must differ, found {list(self.layers)}")
        if self.blocks > 1 and self.tokens == "default":
            raise ValueError("blocks needs tokens: cls, mean or cls+mean")
        return self


# Settings that decide where and how fast an evaluation runs but not its result.
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
# Behaviour of evaluations recorded before these settings existed.
_BEFORE_THERE_WAS_A_CHOICE: dict[str, Any] = {
    "data.eval_interpolation": "bilinear",
    "multi_label": None,
    "multi_label.val_split": None,
    "probe.views": "pillow",
    "split": "test",
    "tokens": "default",
    "blocks": 1,
    "tuning.steps": None,
    "tuning.nesterov": False,
    "tuning.schedule": "milestones",
    "tuning.bn_momentum": "unchanged",
    "grid.base_lr": [],
    "grid.decays": [],
    "grid.held_out_percent": 20.0,
}
DETECTION_BEFORE_THERE_WAS_A_CHOICE: dict[str, Any] = {
    "data.format": "coco",
    "data.keep_empty_images": False,
    "model.mask_head": True,
    "model.features": "FPN",
    "model.pyramid_norm": None,
    "model.anchor_sizes_pixels": [32, 64, 128, 256, 512],
    "model.anchor_aspect_ratios": [0.5, 1, 2],
    "sampling.train_proposals_per_image": None,
}
"""Behaviour of detectors recorded before these settings existed; a recipe's fingerprint leaves out
those with this value."""
# Settings of detectors whose null means the value of another one.
_FOLLOWING_ANOTHER = {
    "sampling.train_proposals_per_image": "sampling.proposals_per_image",
    "model.pyramid_norm": "model.head_norm",
}
# Settings that follow the device if null, and the values of older records, where none did. Like the
# device itself, this makes no other result.
_FOLLOWING_THE_DEVICE = {"batch_size": 256, "memory_budget_mib": 512}


def result_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that affect a result, by dotted key.

    Defaults that are written out are as those left out.

    Args:
        tree: An evaluation's settings as plain values.
    """
    found = flatten(tree)
    # Before the setting existed, detection applied EXIF orientation and evaluations did not.
    is_detector = "data.train_annotations" in found or "solver.iterations" in found
    older = DETECTION_BEFORE_THERE_WAS_A_CHOICE if is_detector else _BEFORE_THERE_WAS_A_CHOICE
    settings = older | {_TURNING: is_detector} | found
    for key, usual in _FOLLOWING_THE_DEVICE.items():
        if settings.get(key, usual) is None:
            settings[key] = usual
    for key, other in _FOLLOWING_ANOTHER.items():
        if settings.get(key) is not None and settings[key] == settings.get(other):
            settings[key] = None
    neutral = RESULT_NEUTRAL_KEYS
    if is_pixels(settings.get("data.name")):
        neutral = neutral | {_TURNING}
    return {key: value for key, value in settings.items() if key not in neutral}
