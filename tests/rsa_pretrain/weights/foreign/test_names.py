import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsa_pretrain.weights.foreign.names import (
    C4_DETECTOR,
    DETECTRON2,
    NUMBERED,
    TORCHVISION,
    TRANSFORMERS,
)

TABLES = {
    "torchvision": TORCHVISION,
    "numbered": NUMBERED,
    "transformers": TRANSFORMERS,
    "detectron2": DETECTRON2,
    "detectron2_c4": C4_DETECTOR,
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_inverse_restores_every_name(network, table, arch):
    """Every tensor has one name in each table, no two share one, and it leads back."""
    names = TABLES[table]
    renamed = {names.from_torchvision(name): name for name in network(1, arch)}
    assert len(renamed) == len(network(1, arch))
    assert all(names.to_torchvision(there) == name for there, name in renamed.items())


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.lists(
        st.sampled_from(
            ["conv1", "bn1", "layer1", "res2", "0", "01", "²", "4", "weight", "bias", "shortcut"]
        ),
        max_size=8,
    ).map(".".join)
)
def test_a_name_that_is_taken_leads_back(table, name):
    """A table accepts exactly the names that its inverse gives; all others are refused."""
    names = TABLES[table]
    ours = names.to_torchvision(name)
    if ours is not None:
        assert names.from_torchvision(ours) == name


@pytest.mark.parametrize(
    "name",
    [
        "fc.weight",
        "layer1.0.conv1.bias",
        "layer5.0.conv1.weight",
        "layer1.00.bn1.bias",
        f"layer1.{5000 * '9'}.bn1.bias",
        "conv1",
        "",
    ],
)
def test_names_of_no_trunk_tensor_raise(name):
    """A tensor outside a ResNet trunk has no name anywhere."""
    for names in TABLES.values():
        with pytest.raises(ValueError, match="is not the name of a tensor in a torchvision ResNet"):
            names.from_torchvision(name)
    assert TORCHVISION.to_torchvision(name) is None


def test_names_are_the_libraries(network):
    """The tables agree with transformers' and a Sequential's own names."""
    torchvision = pytest.importorskip("torchvision")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from torch import nn

    config = transformers.ResNetConfig(
        layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2]
    )
    for names, theirs in (
        (TRANSFORMERS, transformers.ResNetModel(config).state_dict()),
        (
            NUMBERED,
            nn.Sequential(*list(torchvision.models.resnet18().children())[:-1]).state_dict(),
        ),
    ):
        wanted = {names.from_torchvision(name): tensor.shape for name, tensor in network(1).items()}
        # transformers' basic blocks are torchvision's but for where layer1 has no shortcut.
        assert {name: tensor.shape for name, tensor in theirs.items()} == wanted
