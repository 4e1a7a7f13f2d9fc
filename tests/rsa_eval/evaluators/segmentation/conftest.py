"""Drawn images with masks, and settings of a short probe of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from masked_shapes import CLASSES, write_shapes

from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.features.subject import Subject, load_subject
from rsa_pretrain.plumbing.config.files import parse_tree

MakeConfig = Callable[..., SegmentationConfig]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares of three colours in VOC2012's layout."""
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def make_config(shapes: Path) -> MakeConfig:
    """A function that makes settings; words of the probe, the data and the masks come by name."""

    def make(
        root: Path = shapes,
        probe: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        masks: dict[str, Any] | None = None,
        **changes: Any,
    ) -> SegmentationConfig:
        short = {"epochs": 2, "milestones": [], "lr": 2.0, "batch_size": 5}
        tree = {
            "data": {
                "name": "imagefolder",
                "root": root,
                "image_size": 64,
                "eval_interpolation": "bicubic",
                "num_workers": 0,
                **(data or {}),
            },
            "masks": {"name": "shapes", "layout": "voc", "classes": CLASSES, **(masks or {})},
            "backbone": {"arch": "resnet18", "stem": "standard"},
            "probe": short | (probe or {}),
            "device": "cpu",
        }
        return parse_tree(SegmentationConfig, tree | changes, "test")

    return make


@pytest.fixture
def random_subject(make_config: MakeConfig) -> Subject:
    """A narrow ResNet-18 with random weights."""
    return load_subject(None, make_config())
