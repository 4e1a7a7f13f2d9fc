"""Fixtures of the pretraining tests."""

import importlib.util
from pathlib import Path

import pytest
import torch

from rsa_pretrain.backbone import build_backbone
from rsa_pretrain.config import BackboneConfig

REFERENCE = Path(__file__).parents[1] / "reference"

# Settings of each method with narrow heads.
SMALL_METHODS = {
    "rsa": {"hidden_dim": 16, "output_dim": 8, "beta_base": 0.3},
    "byol": {"hidden_dim": 12, "output_dim": 6},
    "simsiam": {"projector_layers": 2, "projector_dim": 16, "predictor_hidden_dim": 8},
    "simsiam_rsa": {
        "projector_layers": 3,
        "projector_dim": 16,
        "predictor_hidden_dim": 8,
        "beta_base": 0.4,
    },
    "simclr": {"hidden_dim": 12, "output_dim": 6, "temperature": 0.5},
    "moco_v2": {"hidden_dim": 12, "output_dim": 6, "queue_size": 20},
    "supervised": {"num_classes": 10},
}


def load_reference(name):
    """A module of tests/reference."""
    spec = importlib.util.spec_from_file_location(name, REFERENCE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def algorithm1():
    """The slow rewrite of RSA's Algorithm 1."""
    return load_reference("rsa_algorithm1")


@pytest.fixture(scope="session")
def rivals():
    """The slow rewrites of the other methods."""
    return load_reference("rival_methods")


@pytest.fixture(scope="session")
def small_methods():
    """Settings of each method with narrow heads, by name."""
    return SMALL_METHODS


@pytest.fixture
def small_backbone():
    """A ResNet-18 of the small stem."""
    return build_backbone(BackboneConfig(arch="resnet18", stem="standard"))


@pytest.fixture
def random_views():
    """A function that makes float64 views of 32 px."""

    def make(num_views, num_images=4):
        shape = (num_images, 3, 32, 32)
        return [torch.randn(shape, dtype=torch.float64) for _ in range(num_views)]

    return make
