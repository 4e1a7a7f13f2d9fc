"""Plan a transfer suite: find the data sets that are on disk, and evaluate each alike."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rsa_eval.campaigns.settings import PlannedEvaluation, SharedSettings
from rsa_eval.campaigns.transfer.settings import FURTHER_SETS, KORNBLITH_SETS, TransferConfig
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.evaluators.shared.published_lists import download_voc_command
from rsa_pretrain.data.open_images import is_present
from rsa_pretrain.data.sets import DATA_SETS, data_set
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import flatten, load_config, parse_tree
from rsa_pretrain.plumbing.errors import UserError

_VOC = Path("VOCdevkit") / "VOC2007"
_OF_PROTOCOLS = {
    "logistic": ("logistic", "kornblith"),
    "ridge": ("logistic", "ridge"),
    "finetune": ("finetune", "byol"),
}
# Of the short side of a test image to its crop, after fine-tuning.
_MARGIN = 256 / 224


@dataclass(frozen=True)
class TransferPlan:
    """The evaluations of a suite, and the sets that are not on disk."""

    evaluations: list[PlannedEvaluation]
    """Named after their data sets."""
    absent: dict[str, str]
    """The reason, and what to fetch, for each set that is not evaluated."""

    def shared(self, config: TransferConfig) -> SharedSettings:
        """Return what the planning of trials needs to know of the evaluations."""
        data = self.evaluations[0].config.data
        return SharedSettings(data=data, backbone=config.backbone, seed=config.seed)


def plan_transfer(
    config: TransferConfig, names: Sequence[str] | None, cache_dir: Path
) -> TransferPlan:
    """Resolve the evaluation of every set that is on disk.

    Args:
        config: The suite.
        names: Data sets; None takes all of the suite and the config's own.
        cache_dir: Folder that caches features, unless the config names one.

    Raises:
        UserError: If a name is unknown, a setting is invalid, or no set is on disk.
    """
    if names is None:
        names = (*KORNBLITH_SETS, *FURTHER_SETS, *config.own_sets)
    clash = sorted(set(config.own_sets) & {"voc2007", *(entry.name for entry in DATA_SETS)})
    if clash:
        raise UserError(f"own_sets: '{clash[0]}' is the name of a published set; choose another")
    evaluations: list[PlannedEvaluation] = []
    absent: dict[str, str] = {}
    for name in names:
        images = _images_of(name, config)
        try:
            data = parse_tree(DataConfig, images, f"own_sets.{name}")
            lack = _lack_of(data, name, config)
            if lack is None:
                evaluations.append(_evaluation(name, images, config, cache_dir))
            else:
                absent[name] = lack
        except UserError as error:
            is_named = str(error).startswith(f"own_sets.{name}: ")
            raise UserError(str(error) if is_named else f"{name}: {error}") from None
    if not evaluations:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(absent.items())[:3])
        raise UserError(f"none of {len(absent)} data sets is on disk; {reasons}")
    return TransferPlan(evaluations, absent)


def _images_of(name: str, config: TransferConfig) -> dict[str, Any]:
    """Return a set's settings of ``data``."""
    margin = _MARGIN if config.protocol == "finetune" else 1
    tree: dict[str, Any] = {
        "image_size": config.image_size,
        "eval_resize": round(margin * config.image_size),
        "eval_interpolation": config.interpolation,
        "num_workers": config.num_workers,
    }
    if name in config.own_sets:
        return tree | config.own_sets[name]
    if name == "voc2007":
        return tree | {"name": "imagefolder", "root": str(config.root / _VOC)}
    known = [entry.name for entry in DATA_SETS if "root" in entry.location or not entry.location]
    if name not in known or name == "imagefolder":
        expected = sorted({*known, "voc2007", *config.own_sets} - {"imagefolder"})
        nearest = [f"did you mean '{near}'? " for near in get_close_matches(name, expected, n=1)]
        raise UserError(
            f"unknown data set '{name}'; {''.join(nearest)}expected some of {', '.join(expected)}"
        )
    root = {"root": str(config.root)} if data_set(name).location else {}
    return tree | {"name": name} | root


def _lack_of(data: DataConfig, name: str, config: TransferConfig) -> str | None:
    """Return what an evaluation of a set lacks; None if nothing."""
    if name == "voc2007":
        if (config.root / _VOC / "ImageSets").is_dir():
            return None
        found = f"no ImageSets in '{config.root / _VOC}'"
        return f"{found}; run {download_voc_command(config.root)}"
    if not data_set(data.name).location or is_present(data):
        return None
    try:
        data_set(data.name).open(data, "test")
    except UserError as error:
        return str(error)
    return None


def _evaluation(
    name: str, images: dict[str, Any], config: TransferConfig, cache_dir: Path
) -> PlannedEvaluation:
    kind, protocol = _OF_PROTOCOLS[config.protocol]
    settings = {
        "protocol": protocol,
        "data": images,
        "seed": config.seed,
        "device": config.device,
        "cache_dir": str(config.cache_dir or cache_dir),
        **flatten(config.settings),
    }
    if name == "voc2007":
        settings["multi_label"] = {"name": "voc2007", "layout": "voc"}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    evaluator = EVALUATORS[kind]
    found = load_config(evaluator.config, None, overrides)
    return PlannedEvaluation(f"{config.protocol}-{name}", evaluator, found)
