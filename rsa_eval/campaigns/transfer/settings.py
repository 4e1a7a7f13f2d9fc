"""Settings of a transfer suite: one evaluation on each of many data sets."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from rsa_eval.campaigns.settings import NameOfFiles
from rsa_eval.config import RandomBackboneConfig
from rsa_pretrain.data.settings import Interpolation, Seed
from rsa_pretrain.plumbing.config.files import Section, flatten
from rsa_pretrain.plumbing.device_names import DeviceName

# Kornblith et al. 2019's suite, in the order of BYOL's Table 3, with CUB-200 for Birdsnap, whose
# images can no longer be had; their Caltech-101 includes the background.
KORNBLITH_SETS = (
    *("food101", "cifar10", "cifar100", "cub200", "sun397", "stanford_cars", "fgvc_aircraft"),
    *("voc2007", "dtd", "oxford_pets", "caltech101_background", "flowers102"),
)
FURTHER_SETS = ("eurosat", "resisc45", "svhn", "stl10", "gtsrb", "pcam")

# Settings of each evaluation that the suite sets by other means.
_OF_THE_SUITE = {
    **{key: key for key in ("protocol", "backbone", "seed", "device", "cache_dir")},
    "data.name": "--sets or own_sets",
    "data.root": "root or own_sets",
}


class TransferConfig(Section):
    """One evaluation on each of many data sets."""

    protocol: Literal["logistic", "ridge", "finetune"] = "logistic"
    """logistic: Kornblith et al. 2019's logistic regression, as in BYOL's Table 3; ridge: ridge
    regression in closed form, a first look; finetune: BYOL's fine-tuning with a grid of rates and
    decays, 57 trainings per set."""
    root: Path = Path("data")
    """Folder of the published sets, where `rsa-pretrain download SET ROOT` puts them."""
    own_sets: dict[NameOfFiles, dict[str, Any]] = Field(default_factory=dict)
    """Further data sets by name, each with its settings of `data`, such as
    own_sets.photos.name=imagefolder own_sets.photos.root=photos."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    """Side of the crop of a test image's centre, in pixels; its short side is resized to as much,
    for fine-tuning to 8/7 of it."""
    interpolation: Interpolation = "bicubic"
    """Interpolation of the resizing."""
    num_workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes."""
    backbone: RandomBackboneConfig | None = None
    """Network of --random-init; null: those of the checkpoints."""
    seed: Seed = 0
    """Seed of all evaluations."""
    device: DeviceName = "auto"
    """auto: a GPU if there is one."""
    cache_dir: Path | None = None
    """Folder that caches features; null: OUT/features."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Changes to the evaluator's settings on all sets, nested or dotted, such as
    settings.search.num_values=12 or settings.tokens=cls."""

    @field_validator("settings")
    @classmethod
    def _check_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for key in flatten(settings):
            for own, instead in _OF_THE_SUITE.items():
                if key == own or key.startswith(f"{own}."):
                    raise ValueError(f"'{key}' is set for the suite; use {instead}")
        return settings
