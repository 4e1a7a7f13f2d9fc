"""Pretraining called as a function."""

import pytest
import torch

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.config.files import load_config, parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.folder_lock import LOCK_FILE
from rsa_pretrain.training.pretraining import pretrain
from rsa_pretrain.weights.checkpoint import load_backbone
from tests.support.held_folder import held_folder

pytestmark = pytest.mark.usefixtures("narrow_resnets")


def test_a_config_object_is_trained_once(tiny_config):
    """The call trains to the end; a second call never replaces the run, and resuming keeps it."""
    assert pretrain(tiny_config) == 0
    weights = tiny_config.output_dir / "backbone.safetensors"
    before = weights.read_bytes()
    assert load_backbone(tiny_config.output_dir).metadata.step == 8
    with pytest.raises(UserError, match="contains a finished run; choose another output_dir"):
        pretrain(tiny_config)
    assert pretrain(tiny_config, resume=True) == 0
    assert weights.read_bytes() == before


@pytest.mark.process
def test_a_folder_takes_one_run_at_a_time(tiny_config):
    """A second run is refused; one killed in any way keeps nobody out."""
    with held_folder(tiny_config.output_dir):
        with pytest.raises(UserError, match=r"another run is writing to .*; wait until it ends"):
            pretrain(tiny_config)
        assert [path.name for path in tiny_config.output_dir.iterdir()] == [LOCK_FILE]
    assert pretrain(tiny_config) == 0


def test_the_monitor_is_not_left_out_in_silence(tiny_tree):
    """A run that asks for kNN needs what measures it, and says where it is."""
    tiny_tree["monitor"] |= {"knn_every_epochs": 1, "num_held_out_images": 10}
    config = parse_tree(PretrainConfig, tiny_tree, None)
    with pytest.raises(UserError, match=r"make_evaluate=rsa_eval\.make_online_knn"):
        pretrain(config)
    assert not config.output_dir.exists()
    seen = []

    def make_evaluate(run, images, held_out, device):
        assert (run, len(images), len(held_out), device) == (config, 22, 10, torch.device("cpu"))
        return lambda backbone: seen.append(backbone) or {"knn_top1": 50.0}

    assert pretrain(config, make_evaluate=make_evaluate) == 0
    assert len(seen) == 2


def test_settings_by_name_by_dict_and_in_code():
    """Three ways to the same settings."""
    named = load_config(PretrainConfig, "digits/rsa", ["training.epochs=2", "seed=3"])
    assert (named.training.epochs, named.seed) == (2, 3)
    as_dict = load_config(PretrainConfig, start=named.model_dump())
    in_code = PretrainConfig(
        seed=3,
        data=named.data,
        views=named.views,
        backbone=named.backbone,
        method=named.method,
        optimizer=named.optimizer,
        training=named.training,
        monitor=named.monitor,
    )
    assert named == as_dict == in_code
    with pytest.raises(UserError, match=r"the nearest valid key is 'training\.epochs'"):
        load_config(PretrainConfig, start={**named.model_dump(), "training": {"epoch": 1}})
