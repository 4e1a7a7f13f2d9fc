"""Networks wider or narrower than torchvision's: SwAV's, VICReg's and PyContrast's by 2 and 4."""

import pytest
import torch

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import load_backbone
from rsa_pretrain.weights.foreign.load import ImportOptions, write_import
from rsa_pretrain.weights.foreign.recognise import recognise
from rsa_pretrain.weights.tensor_check import differing


def test_another_width_is_told_by_the_first_kernels(tmp_path):
    """A network whose stem and stages scale together is imported under its width's name."""
    config = BackboneConfig(arch="resnet18", stem="standard", width=16)
    state = build_backbone(config).state_dict()
    written = {f"module.{name}": tensor for name, tensor in state.items()}
    written["module.prototypes.weight"] = torch.ones(3, 2)
    torch.save({"state_dict": written}, tmp_path / "swav.pth.tar")
    write_import(tmp_path / "swav.pth.tar", tmp_path / "x.safetensors", ImportOptions())
    loaded = load_backbone(tmp_path / "x.safetensors")
    assert loaded.metadata.origin.layout == "swav"
    assert loaded.metadata.arch == "resnet18_w16"
    assert not differing(loaded.backbone.state_dict(), state)


def test_blocks_of_another_width_than_the_stem_are_refused(network, as_content):
    """ResNeXt and wide_resnet50_2 widen only their blocks; a cut stem leaves the blocks alone."""
    state = network(1)
    for name in ("layer1.0.conv1.weight", "conv1.weight"):
        cut = {name: state[name][:32]}
        with pytest.raises(UserError, match=rf"1 misshapen: {name} \(float32 \[32, "):
            recognise(as_content(state | cut))


def test_a_width_that_cannot_be_built_is_named(as_content):
    """SwAV's RN50w5 has 320 channels, beyond what the setting backbone.width takes."""
    with torch.device("meta"):
        shapes = build_backbone(BackboneConfig(arch="resnet18", stem="standard", width=8))
    state = {name: torch.zeros(part.shape) for name, part in shapes.state_dict().items()}
    for name in ("conv1.weight", "layer1.0.conv1.weight"):
        state[name] = torch.zeros(320, *state[name].shape[1:])
    with pytest.raises(UserError, match="its stem has 320 channels; networks are built with 8 to"):
        recognise(as_content(state))
