"""Weights without batch counts and in other element types are imported and reported."""

import logging

import pytest
import torch

from detection.exchange.convert import convert
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.subject import load_subject
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import load_backbone
from rsa_pretrain.weights.foreign.layouts import LAYOUTS
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights, write_import
from rsa_pretrain.weights.foreign.recognise import recognise

NAMES = [layout.name for layout in LAYOUTS]
FLOATS = [torch.float16, torch.bfloat16, torch.float64]
COUNT = "num_batches_tracked"


def as_type(state, dtype):
    """A state with its floating-point tensors in another type."""
    return {
        name: part.to(dtype) if part.is_floating_point() else part for name, part in state.items()
    }


def without_counts(state):
    """A state without batch counts."""
    return {name: part for name, part in state.items() if not name.endswith(COUNT)}


def replace_state(made, change):
    """Change every container of an example's file."""
    if any(isinstance(part, torch.Tensor) for part in made.tree.values()):
        made.tree = change(made.tree)
    else:
        whole = change(made.state)
        made.state.clear()
        made.state.update(whole)
    return made


def only_tensors(change):
    """A change of the tensors of a state that holds other things too."""

    def apply(state):
        tensors = {name: part for name, part in state.items() if isinstance(part, torch.Tensor)}
        rest = {name: part for name, part in state.items() if name not in tensors}
        return rest | change(tensors)

    return apply


@pytest.mark.parametrize("name", NAMES)
def test_absent_counts_are_filled_in_every_layout(example, name):
    """Files of before PyTorch 0.4.1, or stripped of counts, are complete; the zeros are listed."""
    made = replace_state(example(name), only_tensors(without_counts))
    plan = recognise(made.content()).plan
    assert len(plan.filled) == 20
    assert all(int(plan.tensors[key]) == 0 for key in plan.filled)
    wanted = without_counts(made.wanted)
    assert all(torch.equal(plan.tensors[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_converted_in_every_layout(example, name):
    """Every float becomes the nearest float32, and the conversion is counted."""
    made = replace_state(example(name), only_tensors(lambda state: as_type(state, torch.float16)))
    plan = recognise(made.content()).plan
    assert plan.converted == {"float16": 100}
    wanted = as_type(as_type(made.wanted, torch.float16), torch.float32)
    assert all(torch.equal(plan.tensors[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("dtype", FLOATS)
def test_other_floats_are_converted(network, tmp_path, dtype):
    """The file written holds float32, equal to the source's values, and says what it was."""
    source, out = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save(as_type(network(1), dtype), source)
    origin = write_import(source, out, ImportOptions()).origin
    assert origin.converted == {str(dtype).removeprefix("torch."): 100}
    loaded = load_backbone(out).backbone.state_dict()
    wanted = as_type(network(1), dtype)
    assert all(torch.equal(loaded[key].to(wanted[key].dtype), wanted[key]) for key in wanted)


def test_doubles_beyond_float32_are_refused(network, as_content):
    """A finite double that float32 cannot hold is never made infinite, even where NaN may be."""
    state = as_type(network(1), torch.float64)
    state["bn1.bias"] = state["bn1.bias"].clone()
    state["bn1.bias"][3] = 1e300
    for finite in (True, False):
        with pytest.raises(UserError, match=r"1 not finite as float32 .*: bn1\.bias"):
            recognise(as_content(state), finite=finite)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool])
def test_integers_are_no_weights(network, as_content, dtype):
    """Quantised or miscast weights are refused by the name of their type."""
    state = network(1) | {"bn1.bias": network(1)["bn1.bias"].to(dtype)}
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(UserError, match=rf"1 of another type: bn1\.bias \({kind}, expected float"):
        recognise(as_content(state))


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.float16])
def test_counts_of_other_types_are_counts(network, as_content, dtype):
    """``.half()`` on every tensor casts counts too; whole numbers among them are kept."""
    state = network(1)
    state |= {key: part.to(dtype) for key, part in state.items() if key.endswith(COUNT)}
    plan = recognise(as_content(state)).plan
    assert plan.converted == {str(dtype).removeprefix("torch."): 20}
    assert all(
        plan.tensors[key].dtype == torch.int64 and torch.equal(plan.tensors[key], part)
        for key, part in network(1).items()
        if key.endswith(COUNT)
    )


def test_counts_beyond_half_precision_are_filled(network, as_content):
    """A count that ``.half()`` made infinite counts as absent."""
    key = f"bn1.{COUNT}"
    state = network(1) | {key: torch.tensor(450_000).half()}
    plan = recognise(as_content(state)).plan
    assert plan.filled == (key,)
    assert torch.equal(plan.tensors[key], torch.tensor(0))


@pytest.fixture
def half_file(network, tmp_path):
    """A file in half precision, without batch counts."""
    path = tmp_path / "half.pth"
    torch.save(without_counts(as_type(network(1), torch.float16)), path)
    return path


def test_evaluations_take_the_file_and_say_so(half_file, caplog):
    """rsa-eval loads the same weights as an import, and logs each change once."""
    config = parse_tree(KNNConfig, {"data": {"name": "digits", "image_size": 16}}, "test")
    with caplog.at_level(logging.INFO):
        subject = load_subject(half_file, config)
        load_subject(half_file, config)
    imported = import_weights(half_file, ImportOptions()).backbone.state_dict()
    found = subject.backbone.state_dict()
    assert all(torch.equal(found[key], imported[key]) for key in imported)
    assert [record.message.partition("': ")[2] for record in caplog.records] == [
        "converted 100 float16 tensors to the network's float32 and int64",
        "filled 20 batch counts that the file lacks, with 0",
    ]
    assert subject.model.metadata.origin.converted == {"float16": 100}


def test_detectors_take_the_file(half_file, tmp_path):
    """rsa-detect convert writes the float32 weights, which come back equal."""
    convert(half_file, tmp_path / "x.pkl")
    again = import_weights(tmp_path / "x.pkl", ImportOptions()).backbone.state_dict()
    wanted = import_weights(half_file, ImportOptions()).backbone.state_dict()
    assert all(torch.equal(again[key], wanted[key]) for key in wanted)
