"""List what a GPU is asked, in the order of worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_EAGER, _CAPTURED, _COMPILED = ["eager"], ["captured"], ["compiled"]
# Sizes at which a rehearsal's numbers mean nothing.
_FEW = {"num_images": 8, "batch_size": 4, "stem": "standard", "repeats": 1}
_ONE_STEP = {"batch_size": 2, "stem": "standard", "image_size": 16, "repeats": 2}
_BOTH = {"methods": ["RSA", "BYOL (AA)"]}
_HERE = {"fresh_processes": False}


@dataclass(frozen=True)
class Item:
    """One benchmark with its settings."""

    name: str
    """That of the benchmark if the settings are the ones that its page shows."""
    benchmark: str
    seconds: float
    """Expected on an H100; an item that takes twice as long is ended."""
    on_gpu: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the benchmark's defaults on a GPU."""
    in_rehearsal: Mapping[str, Any] = field(default_factory=dict)
    """Settings on a CPU."""
    cut: int | None = None
    """Place in the order of cutting, where time is short; None: never cut."""
    needs: str | None = None
    """Package that must be installed."""
    fills: bool = False
    """True if it takes all the time that is left, by its setting ``minutes``."""


ITEMS = (
    Item(
        "card",
        "card",
        25,
        in_rehearsal={"copied_mib": 4, "side": 64, "calls": 1, "repeats": 1},
        cut=13,
    ),
    Item("gpu_tests", "gpu_tests", 80),
    Item("step", "step", 35, in_rehearsal=_ONE_STEP | _HERE | {"modes": _CAPTURED}, cut=12),
    Item("epoch", "epoch", 50, in_rehearsal=_FEW | _HERE | _BOTH | {"modes": _CAPTURED}, cut=10),
    # Not in the same process: a capture that fails may leave the GPU's context unusable.
    Item("step_eager", "step", 30, {"modes": _EAGER}, _ONE_STEP | _HERE, cut=11),
    Item("epoch_eager", "epoch", 45, {"modes": _EAGER}, _FEW | _HERE, cut=9),
    Item(
        "views",
        "views",
        25,
        {"repeats": 2},
        _HERE | {"num_small_images": 5, "num_photos": 2, "batch_size": 3, "repeats": 1},
        cut=6,
    ),
    Item(
        "step_compiled",
        "step",
        80,
        {"modes": _COMPILED},
        _ONE_STEP | _HERE | {"modes": _COMPILED},
        cut=8,
    ),
    Item(
        "epoch_compiled",
        "epoch",
        60,
        {"modes": _COMPILED},
        _FEW | _HERE | {"modes": _COMPILED},
        cut=7,
    ),
    Item(
        "step_resnet50",
        "step",
        45,
        {
            "arch": "resnet50",
            "stem": "standard",
            "image_size": 224,
            # A captured step keeps its activations; by estimate 256 images do not fit 80 GB.
            "batch_size": 128,
            "steps_per_run": 5,
            "repeats": 2,
        },
        _ONE_STEP | _HERE | {"arch": "resnet50", "image_size": 32},
        cut=1,
    ),
    Item(
        "knn",
        "knn",
        30,
        {"with_sklearn": False},
        {"num_bank": 300, "num_queries": 20, "width": 16, "k": 30, "repeats": 1},
        cut=5,
    ),
    Item(
        "features",
        "features",
        30,
        {"num_images": 1024, "batch_size": 256, "num_workers": 8, "repeats": 2},
        {"num_images": 4, "image_size": 32, "batch_size": 3, "arch": "resnet18", "repeats": 1},
        cut=4,
    ),
    Item(
        "engines",
        "engines",
        60,
        in_rehearsal={"image_size": 64, "iterations": 2, "batch_size": 1},
        cut=3,
    ),
    Item(
        "lightly_epoch",
        "lightly_epoch",
        50,
        {"num_images": 12_800, "stem": "cifar", "repeats": 1, "lightly_workers": 8},
        {"num_images": 8, "batch_size": 4, "repeats": 1, "lightly_workers": 0} | _HERE,
        cut=2,
        needs="lightly",
    ),
    Item(
        "accuracy",
        "accuracy",
        240,
        in_rehearsal={
            "max_epochs": 1,
            "num_timed_images": 64,
            "suite": "digits_quick",
            "changes": [
                "data.name=digits",
                "data.root=null",
                "data.image_size=16",
                "data.num_train_images=64",
                "training.global_batch_size=16",
                "backbone.stem=standard",
            ],
            "suite_changes": ["data.num_train_images=200", "data.num_test_images=100"],
        },
        fills=True,
    ),
)
