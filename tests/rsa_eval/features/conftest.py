"""Features of a few digits, and a count of what computes them."""

from pathlib import Path

import pytest

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images


@pytest.fixture
def cached(knn_config: KNNConfig, tmp_path: Path) -> KNNConfig:
    """The same settings with a cache."""
    return knn_config.model_copy(update={"cache_dir": tmp_path / "cache"})


@pytest.fixture
def images(knn_config: KNNConfig) -> ImageSet:
    """Thirty digits."""
    return open_images(knn_config.data, "test")


@pytest.fixture
def num_forwards(subject: Subject) -> list[int]:
    """A list that grows with each batch the backbone sees."""
    sizes: list[int] = []
    subject.backbone.get_submodule("conv1").register_forward_hook(
        lambda module, inputs, output: sizes.append(len(output))
    )
    return sizes
