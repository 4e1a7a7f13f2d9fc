from pathlib import Path

import pytest

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.training.step_cost import measure_step

pytestmark = pytest.mark.process


@pytest.fixture
def config(tiny_tree):
    """A supervised run of images that are not there."""
    tiny_tree["data"] = {"name": "cifar10", "root": "nowhere", "image_size": 32, "num_workers": 0}
    tiny_tree["method"] = {"name": "supervised", "num_classes": 10}
    return parse_tree(PretrainConfig, tiny_tree, "tiny run")


def test_a_step_is_measured_without_the_images(config):
    """Labelled images are generated; the run's folder is not touched."""
    cost = measure_step(config)
    assert 0 < cost.seconds < 60
    assert 2**27 < cost.memory_bytes < 2**33
    assert not Path(config.output_dir).exists()


def test_a_step_that_does_not_fit_is_no_error(config):
    """The process that lacks memory ends alone."""
    assert measure_step(config, memory_limit_bytes=2**26) is None
