"""Networks of no documented layout: wrapped names, any one prefix, heads, ambiguity."""

import pytest
import torch

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.export.targets.base import probe_images
from rsa_pretrain.weights.foreign.layout import IMAGENET_PIXELS, UNNORMALISED
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights
from rsa_pretrain.weights.foreign.names import DETECTRON2, NUMBERED, TRANSFORMERS
from rsa_pretrain.weights.foreign.recognise import recognise
from rsa_pretrain.weights.foreign.unwrap import WRAPPERS

PREFIXES = ["backbone.", "encoder.", "model.", "resnet.", "net.", "model.resnet.", "_orig_mod."]
HEADS = ["fc.", "fc.0.", "classifier.", "head.", "classifier.1.", "my_layer."]


def under(prefix, state):
    """A state with something before its names."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def linear(prefix):
    """A classifier of a ResNet-18's features."""
    return {f"{prefix}weight": torch.ones(10, 512), f"{prefix}bias": torch.ones(10)}


def same(found, wanted):
    """Return whether a plan's tensors are these, bit for bit."""
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) for name in wanted
    )


@pytest.mark.parametrize("form", ["{}", "module.{}", "{}module.", "state_dict/{}", "net/{}"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_network_is_taken_wherever_it_lies(network, as_content, prefix, form):
    """Any one prefix, wrapped before or after, in a container or not; it is in the provenance."""
    container, slash, before = form.format(prefix).rpartition("/")
    state = under(before, network(1)) | linear(f"{before}fc.")
    found = recognise(as_content({container: state} if slash else state))
    assert same(found.plan.tensors, network(1))
    assert found.plan.prefix == form.format(prefix)
    assert sum(len(paths) for paths in found.plan.dropped.values()) == 2
    assert found.plan.pixels == IMAGENET_PIXELS


WRAPPED = {
    "before encoder_q": lambda state: {"state_dict": under("_orig_mod.encoder_q.", state)},
    "inside backbone": lambda state: under("backbone._orig_mod.", state),
    "fsdp": lambda state: under("_fsdp_wrapped_module.", state),
    "in a stage": lambda state: {
        name.replace("layer1.", "layer1._checkpoint_wrapped_module."): tensor
        for name, tensor in state.items()
    },
    "twice in every stage": lambda state: {
        "_fsdp_wrapped_module."
        + name.replace(".0.", ".0._fsdp_wrapped_module._checkpoint_wrapped_module."): tensor
        for name, tensor in state.items()
    },
    "a leaf": lambda state: {
        name.replace("conv1.weight", "conv1.module.weight"): tensor
        for name, tensor in state.items()
    },
}


@pytest.mark.parametrize("how", WRAPPED)
def test_wrappers_are_taken_off_wherever_they_stand(network, as_content, how):
    """torch.compile's, FSDP's and checkpointing's names, anywhere in a name, change nothing."""
    plan = recognise(as_content(WRAPPED[how](network(1)))).plan
    assert same(plan.tensors, network(1))
    assert plan.wrappers
    assert set(plan.wrappers) <= set(WRAPPERS)


def test_a_documented_layout_is_known_by_its_unwrapped_names(network, as_content):
    """A compiled MoCo is a MoCo: its query network is taken, its key network is not."""
    state = under("_orig_mod.encoder_q.", network(1)) | under("_orig_mod.encoder_k.", network(2))
    state |= linear("_orig_mod.encoder_q.fc.")
    plan = recognise(as_content({"state_dict": state})).plan
    assert (plan.layout.name, plan.network) == ("moco", "query")
    assert plan.prefix == "state_dict/_orig_mod.encoder_q."
    assert same(plan.tensors, network(1))


def test_names_that_differ_by_wrappers_alone_are_refused(network, as_content):
    """Of two tensors of one name neither is chosen, and both are named."""
    state = network(1) | {"module.bn1.bias": torch.ones(64)}
    with pytest.raises(
        UserError, match=r"'bn1\.bias' and 'module\.bn1\.bias', which differ only by"
    ):
        recognise(as_content(state))


@pytest.mark.parametrize("container", ["model_state_dict", "net", "network", "weights", "ema"])
def test_containers_are_looked_through(network, as_content, container):
    """The one container with a network is found, whatever its name."""
    plan = recognise(as_content({container: network(1), "epoch": 3})).plan
    assert same(plan.tensors, network(1))
    assert plan.prefix == f"{container}/"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_heads_are_told_by_structure(network, as_content, prefix, head):
    """A head is recognised by following the features, whatever its number or name."""
    content = as_content(under(prefix, network(1)) | linear(prefix + head))
    plan = recognise(content).plan
    assert same(plan.tensors, network(1))
    assert sum(len(paths) for paths in plan.dropped.values()) == 2


def test_what_lies_outside_is_listed_by_module(network, as_content):
    """The provenance lists what was passed over, with the number of tensors of each."""
    state = under("model.resnet.", network(1)) | linear("model.head.") | linear("other.1.")
    plan = recognise(as_content({"state_dict": state, "net": linear("")})).plan
    dropped = {what: len(paths) for what, paths in plan.dropped.items()}
    assert dropped == {"'state_dict/model.head'": 2, "'state_dict/other'": 2, "'net'": 2}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layer1.0.se.fc1.weight", (4, 64)),
        ("layer5.0.conv1.weight", (4, 512, 3, 3)),
        ("layer5.weight", (4, 512, 3, 3)),
        ("conv2.weight", (64, 64, 3, 3)),
        ("conv1.bias", (64,)),
        ("norm.weight", (512,)),
        ("attention.fc1.weight", (512, 512)),
        ("layer2.0.gamma", (128,)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "net."])
def test_another_architecture_is_refused(network, as_content, prefix, name, shape):
    """A further tensor in stem, stages or between them makes other features, so it is named."""
    state = under(prefix, network(1)) | {prefix + name: torch.ones(shape)}
    with pytest.raises(UserError, match=f"1 unexpected: {prefix}{name}"):
        recognise(as_content(state))


@pytest.mark.parametrize("change", ["missing", "misshapen", "without a block", "without its stem"])
def test_a_damaged_network_is_refused_where_it_lies(network, as_content, change):
    """Missing and misshapen tensors are reported, with their prefix."""
    state = network(1)
    message = {
        "missing": r"as torchvision \(model\) under 'net\.': 1 missing: layer3\.1\.bn2\.bias",
        "misshapen": r"under 'net\.': 1 misshapen: bn1\.bias \(float32 \[32\], expected",
        "without a block": r"under 'net\.': its stages have \[2, 2, 2, 1\] basic blocks",
        "without its stem": r"no tensor is called net\.conv1\.weight",
    }[change]
    if change == "missing":
        del state["layer3.1.bn2.bias"]
    elif change == "misshapen":
        state["bn1.bias"] = torch.ones(32)
    elif change == "without a block":
        state = {name: part for name, part in state.items() if not name.startswith("layer4.1.")}
    else:
        del state["conv1.weight"]
    with pytest.raises(UserError, match=message):
        recognise(as_content(under("net.", state)))


AMBIGUOUS = {
    "two modules": lambda a, b: under("model.a.", a) | under("model.b.", b),
    "an average": lambda a, b: {"model": a, "ema": b},
    "a damaged one and its average": lambda a, b: {
        "model": {name: part for name, part in a.items() if name != "bn1.bias"},
        "ema": b,
    },
    "one without its stem": lambda a, b: {
        "model": {name: part for name, part in a.items() if name != "conv1.weight"},
        "ema": b,
    },
    "query and key of no project": lambda a, b: under("encoder_q.", a) | under("encoder_k.", b),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_several_networks_are_listed(network, as_content, case):
    """None of several networks is chosen, not even the only complete one; a prefix chooses."""
    tree = AMBIGUOUS[case](network(1), network(2))
    with pytest.raises(UserError, match=r"has 2 networks, under '.*', '.*'; .* --prefix") as error:
        recognise(as_content(tree))
    second = str(error.value).split("'")[5]
    assert same(recognise(as_content(tree), prefix=second).plan.tensors, network(2))


def test_one_network_under_two_names_is_one(network, as_content):
    """If two places have the same values there is nothing to choose; both are reported."""
    state = under("model.", network(1)) | under("backbone.", network(1))
    found = recognise(as_content({"state_dict": state}))
    assert found.plan.prefix == "state_dict/model."
    assert "the same tensors lie under 'state_dict/backbone.'" in found.how
    state["backbone.bn1.bias"] = state["backbone.bn1.bias"] + 1
    with pytest.raises(UserError, match="has 2 networks"):
        recognise(as_content({"state_dict": state}))


@pytest.mark.parametrize(
    "stated",
    ["state_dict/module.b.", "state_dict/module.b", "state_dict/b.", "state_dict/b"],
)
def test_a_stated_prefix_chooses(network, as_content, stated):
    """With its wrappers or without, with the last dot or without, it is the same place."""
    state = under("module.a.", network(1)) | under("module.b.", network(2))
    plan = recognise(as_content({"state_dict": state}), prefix=stated).plan
    assert same(plan.tensors, network(2))
    assert plan.prefix == "state_dict/module.b."


def test_a_stated_prefix_must_hold_a_network(network, as_content):
    """A prefix without a network is answered with the prefixes that have one."""
    content = as_content(under("module.a.", network(1)) | under("b.", network(2)))
    with pytest.raises(UserError, match=r"under 'c\.' .*; networks are under 'module\.a\.', 'b\.'"):
        recognise(content, prefix="c.")
    with pytest.raises(UserError, match="give --network or --prefix, not both: each selects"):
        recognise(content, network="model", prefix="b.")
    with pytest.raises(UserError, match="instead of --network teacher, give its --prefix"):
        recognise(as_content(under("b.", network(2))), network="teacher")
    with pytest.raises(UserError, match=r"under 'b\.': 1 unexpected: b\.layer5\.0\.weight"):
        recognise(
            as_content(under("b.", network(2)) | {"b.layer5.0.weight": torch.ones(2)}), prefix="b."
        )


def test_a_documented_refusal_is_final_and_tells_the_prefix(network, as_content):
    """A project's file with a tensor too many is not taken by its names; --prefix takes it."""
    state = under("backbone.", network(1)) | linear("backbone.fc.0.") | linear("probe.")
    with pytest.raises(
        UserError, match=r"as simclr_sthalles .*: 2 unexpected: .*; a complete network "
    ):
        recognise(as_content({"state_dict": state}))
    plan = recognise(as_content({"state_dict": state}), prefix="state_dict/backbone.").plan
    assert same(plan.tensors, network(1))
    assert (plan.layout.name, plan.pixels) == ("simclr_sthalles", UNNORMALISED)


def test_a_stated_prefix_loosens_no_objection(example):
    """solo-learn's small stem stays another network when its place is stated."""
    content = example("solo_learn", stem="cifar").content()
    with pytest.raises(UserError, match="pads by 2 where this toolkit's pads by 1"):
        recognise(content, prefix="state_dict/backbone.", cifar_stem=True)


@pytest.mark.parametrize("names", [NUMBERED, TRANSFORMERS])
def test_other_namings_are_found_too(network, as_content, names):
    """nn.Sequential's numbers and transformers' names are taken under any prefix."""
    state = {names.from_torchvision(name): tensor for name, tensor in network(1).items()}
    found = recognise(as_content({"model": under("trunk.", state) | linear("head.")}))
    assert same(found.plan.tensors, network(1))
    assert found.plan.prefix == "model/trunk."


def test_colour_order_is_not_guessed_under_any_prefix(network, as_content):
    """detectron2's names show neither colour order nor stride, wherever they are."""
    state = {DETECTRON2.from_torchvision(name): tensor for name, tensor in network(1).items()}
    with pytest.raises(UserError, match="colour order and stride placement are not in the file"):
        recognise(as_content({"state_dict": under("trunk.", state)}))


def test_a_file_of_no_network_shows_its_prefixes(as_content):
    """The refusal counts the largest groups of tensors, and lists no layouts."""
    state = {f"block{number}.weight": torch.ones(2) for number in range(12)}
    state |= {f"tokens.{number}": torch.ones(2) for number in range(5)}
    with pytest.raises(UserError, match=r"no known layout: 17 tensors under 'tokens' \(5\),"):
        recognise(as_content(state))
    with pytest.raises(
        UserError, match=r"and 5 more; it has no stem and stages of a ResNet"
    ) as error:
        recognise(as_content(state))
    assert "simclr_sthalles" not in str(error.value)


def test_the_nearest_naming_is_told(network, as_content):
    """Of a network cut down to stem and one stage, what lacks is listed."""
    cut = {name: part for name, part in network(1).items() if name.startswith(("conv1", "layer1"))}
    with pytest.raises(UserError, match=r"nearest is torchvision's naming, and 'net\.layer2\.0\."):
        recognise(as_content(under("net.", cut)))


def test_features_are_the_networks(network, tmp_path):
    """The imported backbone computes what torchvision's network with these weights computes."""
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    model.load_state_dict(network(1))
    torch.save(under("model._orig_mod.resnet.", network(1)) | linear("head."), tmp_path / "x.pth")
    loaded = import_weights(tmp_path / "x.pth", ImportOptions())
    images = probe_images()
    with torch.inference_mode():
        assert torch.equal(loaded.backbone(images), model.eval()(images))
    origin = loaded.metadata.origin
    assert origin.prefix == "model._orig_mod.resnet."
    assert origin.wrappers == ("_orig_mod",)
    assert origin.dropped == {"'head'": 2}
    assert origin.pixels == "ImageNet's: the file does not identify its project"
