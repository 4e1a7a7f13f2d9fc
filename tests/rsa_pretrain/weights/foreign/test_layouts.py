import pytest
import torch

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import file_sha256, load_backbone
from rsa_pretrain.weights.foreign import recognise as recognise_module
from rsa_pretrain.weights.foreign.layout import IMAGENET_PIXELS, UNNORMALISED, Layout, Pixels
from rsa_pretrain.weights.foreign.layouts import LAYOUTS
from rsa_pretrain.weights.foreign.layouts.plain import TORCHVISION
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights, write_import
from rsa_pretrain.weights.foreign.plan import make_plan
from rsa_pretrain.weights.foreign.recognise import recognise

NAMES = [layout.name for layout in LAYOUTS]
# Saved from within (Distributed)DataParallel.
WRAPPED = ["moco", "moco_v3", "simsiam", "rsa_release", "byol_yaox12", "swav", "barlow_twins"]
WRAPPED += ["vicreg", "pycontrast", "mean_shift", "dino"]
# These read each other's checkpoints, or those of one of them, alike.
SHARED = {"torchvision": "timm", "timm": "torchvision"}


def equal(found, wanted):
    """Return whether two states have the same tensors, types included."""
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name])
        for name in wanted
    )


def without_counts(state):
    """A state without the batch counts, which some layouts do not keep."""
    return {name: state[name] for name in state if not name.endswith("num_batches_tracked")}


def test_every_layout_has_an_example(specs):
    """No layout goes untested, and each names where its keys were read."""
    assert set(specs) == set(NAMES)
    assert all(layout.source for layout in LAYOUTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_recognised_and_imported(example, tmp_path, name):
    """The file, as its project writes it, gives its default network tensor by tensor."""
    made = example(name)
    path = tmp_path / "source.bin"
    made.write(path)
    loaded = import_weights(path, ImportOptions())
    path.unlink()
    assert equal(without_counts(loaded.backbone.state_dict()), without_counts(made.wanted))
    origin = loaded.metadata.origin
    assert origin.layout in (name, SHARED.get(name))
    assert origin.network == next(iter(made.networks))
    assert origin.recognised.startswith(("unambiguous: ", "weights unambiguous: "))
    counts = [key for key in made.wanted if key.endswith("num_batches_tracked")]
    assert origin.filled == []
    assert all(torch.equal(loaded.backbone.state_dict()[key], made.wanted[key]) for key in counts)


def test_an_import_is_written_with_its_provenance(example, tmp_path):
    """The file written loads as this toolkit's, and says where it came from."""
    made = example("moco")
    path, out = tmp_path / "moco.pth.tar", tmp_path / "moco.safetensors"
    made.write(path)
    options = ImportOptions(network="key", method="MoCo v2", data_set="ImageNet-1K")
    metadata = write_import(path, out, options)
    loaded = load_backbone(out)
    assert loaded.metadata == metadata
    assert equal(loaded.backbone.state_dict(), made.networks["key"])
    assert metadata.parent == file_sha256(path)
    assert (metadata.method, metadata.data_set) == ("MoCo v2", "ImageNet-1K")
    assert (metadata.epochs, metadata.step, metadata.seed) == (200, None, None)
    assert metadata.origin.file == "moco.pth.tar"
    assert metadata.origin.dropped == {
        "projection head": 3,
        "negatives": 2,
        "query network": 120,
        "optimizer state": 1,
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_named_network_is_taken(example, name):
    """Each network of a layout can be asked for, and gives its own tensors."""
    made = example(name)
    for network, wanted in made.networks.items():
        found = recognise(made.content(), name, network).plan
        assert equal(without_counts(found.tensors), without_counts(wanted))


def changed(made, change):
    """The file's content with some keys of its default container replaced or (None) removed."""
    whole = dict(made.state)
    made.state.clear()
    made.state.update({key: part for key, part in (whole | change).items() if part is not None})
    content = made.content()
    made.state.clear()
    made.state.update(whole)
    return content


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_refused(example, name):
    """A missing, an extra and a misshapen tensor are each refused, and named."""
    made = example(name)
    bias = made.prefix + made.names.from_torchvision("layer3.1.bn2.bias")
    kernel = made.prefix + made.names.from_torchvision("conv1.weight")
    stray = made.prefix + "layer9.0.conv1.weight"
    for change, message in (
        ({bias: None}, r"1 missing: layer3\.1\.bn2\.bias"),
        ({stray: torch.ones(2)}, r"1 unexpected: \S*layer9\.0\.conv1\.weight"),
        ({kernel: torch.ones(64, 3, 5, 5)}, r"1 misshapen: conv1\.weight"),
    ):
        with pytest.raises(UserError, match=message):
            recognise(changed(made, change))


def test_other_numbers_than_finite_floats_are_refused(example):
    """Integers and NaN are not weights of this network, and the error names each kind."""
    made = example("moco")
    bias = made.wanted["layer3.1.bn2.bias"]
    nan = bias.clone()
    nan[3] = float("nan")
    key = f"{made.prefix}layer3.1.bn2.bias"
    with pytest.raises(UserError, match=r"of another type: layer3\.1\.bn2\.bias \(int64, exp") as e:
        recognise(changed(made, {key: bias.long()}))
    assert "misshapen" not in str(e.value)
    with pytest.raises(UserError, match=r"1 not finite: layer3\.1\.bn2\.bias"):
        recognise(changed(made, {key: nan}))


@pytest.mark.parametrize("name", WRAPPED)
def test_files_saved_without_the_wrapper_are_the_same(example, name):
    """Weights saved from the bare module, without ``module.``, are recognised alike."""
    made = example(name)
    assert "module." in made.prefix
    parts = {
        key.replace(".module.", ".").removeprefix("module."): part
        for key, part in made.state.items()
    }
    made.state.clear()
    made.state.update(parts)
    found = recognise(made.content())
    assert found.plan.layout.name == name
    assert equal(found.plan.tensors, made.wanted)


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_outside_the_network_is_refused(example, name):
    """A tensor beside the known containers is on no drop list, so the file is refused."""
    made = example(name)
    tree = made.tree | {"another_model": {"weight": torch.ones(2)}}
    if made.kind == "safetensors":
        tree = made.tree | {"another_model.weight": torch.ones(2)}
    made.tree = tree
    with pytest.raises(UserError, match=r"1 unexpected: another_model.weight"):
        recognise(made.content())


@pytest.mark.parametrize("arch", ["resnet34", "resnet50", "resnet101"])
def test_other_depths_are_told_by_their_blocks(as_content, arch):
    """The architecture follows from the blocks that are there."""
    with torch.device("meta"):
        shapes = build_backbone(BackboneConfig(arch=arch, stem="standard")).state_dict()
    zeros = {key: torch.zeros(part.shape, dtype=part.dtype) for key, part in shapes.items()}
    assert recognise(as_content(zeros)).plan.config.arch == arch


def test_another_depth_is_refused(network, as_content):
    """A network that this toolkit does not build is refused by its blocks."""
    state = network(1)
    state |= {
        name.replace("layer3.1", f"layer3.{block}"): state[name]
        for name in network(1)
        if name.startswith("layer3.1")
        for block in (2, 3)
    }
    with pytest.raises(UserError, match=r"its stages have \[2, 2, 4, 2\] basic blocks"):
        make_plan(as_content(state), TORCHVISION)


def test_pixel_statistics_are_the_projects(example):
    """SwAV's own red deviation, and raw pixels of the SimCLR ports, go with the weights."""
    swav = recognise(example("swav").content()).plan
    assert swav.pixels == Pixels((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))
    for name in ("simclr_sthalles", "simclr_spijkervet", "simclr_atanov", "byol_sthalles"):
        assert recognise(example(name).content()).plan.pixels == UNNORMALISED
    assert recognise(example("moco").content()).plan.pixels == IMAGENET_PIXELS


def test_the_small_stem_needs_statistics(example, tmp_path):
    """RSA's small networks were trained on several data sets: mean and std must be stated."""
    path = tmp_path / "rsa.pth"
    example("rsa_release", stem="cifar").write(path)
    with pytest.raises(UserError, match=r"cifar stem; give them with rsa-pretrain import --mean"):
        import_weights(path, ImportOptions())
    assumed = Pixels((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    loaded = import_weights(path, ImportOptions(), assumed)
    assert (loaded.metadata.stem, loaded.metadata.mean) == ("cifar", assumed.mean)
    assert loaded.metadata.origin.pixels == "the evaluation's data set's"
    stated = Pixels((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    loaded = import_weights(path, ImportOptions(pixels=stated), assumed)
    assert (loaded.metadata.std, loaded.metadata.origin.pixels) == (stated.std, "stated")


def test_a_stem_that_pads_otherwise_is_refused(example):
    """solo-learn's 3x3 convolution pads by 2: the tensors fit, the features do not."""
    with pytest.raises(UserError, match="pads by 2 where this toolkit's pads by 1"):
        recognise(example("solo_learn", stem="cifar").content())


def test_a_small_stem_of_unknown_strides_must_be_stated(network, tmp_path):
    """Bare names with a 3x3 stem show neither stride nor pooling; stated, they are imported."""
    torch.save(network(1, stem="cifar"), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"if they are 1, 1 and none, say so with .* --cifar-stem"):
        import_weights(tmp_path / "x.pth", ImportOptions())
    loaded = import_weights(
        tmp_path / "x.pth", ImportOptions(pixels=IMAGENET_PIXELS, cifar_stem=True)
    )
    assert loaded.metadata.stem == "cifar"
    assert equal(loaded.backbone.state_dict(), network(1, stem="cifar"))


def test_known_files_without_a_usable_network_say_why(network, as_content):
    """CMC, lightly's CIFAR benchmark and Caffe2's names are recognised and refused."""
    half = {"module.encoder1.conv1.weight": torch.ones(32, 1, 7, 7)}
    half |= {"module.encoder2.conv1.weight": torch.ones(32, 2, 7, 7)}
    with pytest.raises(UserError, match="two half-width networks, one on luminance"):
        recognise(as_content({"model": half}))
    with pytest.raises(UserError, match="strides in its 1x1 convolutions"):
        recognise(as_content({"model": {"res2_0_branch2a_w": torch.ones(2)}}))


def test_other_prefixes_of_a_layout_are_found(network, as_content):
    """Networks bare, under module. and under state_dict are the same to the layout."""
    for wrap in (
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": state, "author": "MMSelfSup"},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
    ):
        found = recognise(as_content(wrap(network(1)))).plan
        assert equal(found.tensors, network(1))


def test_ambiguity_lists_the_candidates(network, as_content, monkeypatch):
    """Two layouts that account for a file and differ in its pixels are never chosen between."""
    rival = Layout(
        name="rival",
        made_by="a test",
        source="a test",
        markers=TORCHVISION.markers,
        networks=TORCHVISION.networks,
        drops=TORCHVISION.drops,
        pixels=UNNORMALISED,
    )
    monkeypatch.setattr(recognise_module, "LAYOUTS", (*LAYOUTS, rival))
    content = as_content(network(1))
    with pytest.raises(UserError, match=r"is ambiguous: torchvision, timm, rival all account"):
        recognise(content)
    assert recognise(content, "rival").plan.pixels == UNNORMALISED
    assert recognise(content, "rival").how == "stated"


def test_unknown_keys_layouts_and_networks_are_named(network, as_content):
    """Each says what was found and what there is."""
    with pytest.raises(UserError, match=r"no known layout: 1 tensors under 'decoder'"):
        recognise(as_content({"decoder.weight": torch.ones(2)}))
    with pytest.raises(
        UserError, match="there is no layout 'moko'; choose one of: auto, torchvision"
    ):
        recognise(as_content(network(1)), "moko")
    with pytest.raises(UserError, match="moco has no network 'teacher'; choose one of: query, key"):
        recognise(as_content(network(1)), "moco", "teacher")
    with pytest.raises(UserError, match=r"no tensor is called state_dict/encoder_q\.conv1"):
        recognise(as_content(network(1)), "moco")


def test_a_stated_layout_must_fit_too(example):
    """Stating a layout loosens nothing."""
    made = example("moco")
    made.state["encoder_q.extra"] = torch.ones(2)
    with pytest.raises(
        UserError, match=r"as moco \(query\): 1 unexpected: state_dict/encoder_q\.e"
    ):
        recognise(made.content(), "moco")


def test_non_finite_weights_are_taken_only_when_asked_for(network, tmp_path):
    """NaN is refused by default; allowed, it is recorded and the file loads again."""
    state = {name: tensor.clone() for name, tensor in network(1).items()}
    state["bn1.bias"][0] = float("inf")
    torch.save(state, tmp_path / "nan.pth")
    out = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match=r"1 not finite: bn1\.bias"):
        write_import(tmp_path / "nan.pth", out, ImportOptions())
    assert not out.exists()
    metadata = write_import(tmp_path / "nan.pth", out, ImportOptions(allow_non_finite=True))
    assert metadata.origin.non_finite == ["bn1.bias"]
    assert equal(load_backbone(out).backbone.state_dict(), state)
