import pytest
import torch
import torchvision

from detection.exchange.trunk_names import IN_DETECTRON2, IN_ENGINE, to_detectron2
from detection.exchange.trunk_shapes import STAGE_BLOCKS, enumerated_shapes, quoted_r50_shapes
from detection.recipe.architecture import RegionMaps


def _trunk_names(arch: str) -> list[str]:
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)(weights=None)
    return [name for name in network.state_dict() if not name.startswith("fc.")]


@pytest.mark.parametrize("features", ["FPN", "C4"])
@pytest.mark.parametrize("arch", sorted(STAGE_BLOCKS))
def test_every_trunk_name_maps_once_and_back(arch: str, features: RegionMaps) -> None:
    """Each tensor of torchvision's ResNet has one name in a detector, and the inverse finds it."""
    names = _trunk_names(arch)
    for table in (IN_DETECTRON2[features], IN_ENGINE[features]):
        mapped = [table.from_torchvision(name) for name in names]
        assert len(set(mapped)) == len(names)
        assert [table.to_torchvision(name) for name in mapped] == names


@pytest.mark.parametrize("features", ["FPN", "C4"])
@pytest.mark.parametrize("arch", sorted(STAGE_BLOCKS))
def test_mapped_names_are_the_architecture_s(arch: str, features: RegionMaps) -> None:
    """The map reaches exactly the names listed from the architecture, which do not use it."""
    mapped = {to_detectron2(name, features) for name in _trunk_names(arch)}
    without_counts = {name for name in mapped if not name.endswith(".num_batches_tracked")}
    assert without_counts == set(enumerated_shapes(arch, features))


def test_listed_shapes_are_detectron2_s_for_resnet50() -> None:
    """The list made from the architecture equals the one read from detectron2."""
    assert len(quoted_r50_shapes()) == 265
    assert enumerated_shapes("resnet50") == quoted_r50_shapes()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_var", "stem.conv1.norm.running_var"),
        ("layer1.0.conv3.weight", "res2.0.conv3.weight"),
        ("layer4.2.bn2.bias", "res5.2.conv2.norm.bias"),
        ("layer3.0.downsample.0.weight", "res4.0.shortcut.weight"),
        ("layer2.0.downsample.1.running_mean", "res3.0.shortcut.norm.running_mean"),
    ],
)
def test_names_by_hand(ours: str, theirs: str) -> None:
    """Examples of every rule."""
    assert to_detectron2(ours) == f"backbone.bottom_up.{theirs}"


@pytest.mark.parametrize(
    "name",
    [
        "fc.weight",
        "conv1.bias",
        "conv2.weight",
        "layer5.0.conv1.weight",
        "layer1.00.conv1.weight",
        "layer1.x.conv1.weight",
        "layer1.0.conv4.weight",
        "layer1.0.conv1.running_mean",
        "layer1.0.downsample.weight",
        "module.conv1.weight",
        "conv1",
        "",
    ],
)
def test_unknown_torchvision_names_raise(name: str) -> None:
    """A name outside the tables is an error, never passed through."""
    with pytest.raises(ValueError, match="not the name of a tensor"):
        to_detectron2(name)


@pytest.mark.parametrize(
    "name",
    [
        "stem.conv1.weight",
        "backbone.bottom_up.stem.fc.weight",
        "backbone.bottom_up.res6.0.conv1.weight",
        "backbone.bottom_up.res2.0.bn1.weight",
        "backbone.bottom_up.res2.0.conv1.norm.scale",
        "backbone.fpn_lateral2.weight",
    ],
)
def test_unknown_detectron2_names_are_none(name: str) -> None:
    """The inverse is as strict."""
    assert IN_DETECTRON2["FPN"].to_torchvision(name) is None
