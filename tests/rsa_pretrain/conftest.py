"""Fixtures of the pretraining tests."""

import pytest
import torch

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


@pytest.fixture(scope="session")
def small_methods():
    """Settings of each method with narrow heads, by name."""
    return SMALL_METHODS


@pytest.fixture
def random_views():
    """A function that makes float64 views of 32 px."""

    def make(num_views, num_images=4):
        shape = (num_images, 3, 32, 32)
        return [torch.randn(shape, dtype=torch.float64) for _ in range(num_views)]

    return make
