"""Files that contain other things beside the weights, and networks pickled whole."""

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import pickle
import random
import sys
import types
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from rsa_pretrain.__main__ import main
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.file_content import look_at_file
from rsa_pretrain.weights.foreign.describe import describe_file
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights, write_import

PROJECT = "a_project_of_the_users"
WEIGHTS = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 4),
    "norm.bias": torch.tensor([0.5, 1.0]),
}


class Colour(enum.Enum):
    """An enumeration."""

    RED = 1


@dataclass
class Options:
    """A dataclass."""

    lr: float = 0.1
    weights: object = None


class Meter:
    """Any class."""

    def __init__(self):
        self.values = [1, 2]

    def update(self):
        """Do nothing."""


class AttributeDict(dict):
    """A mapping of some class, as EasyDict is."""


class Records(list):
    """A list of some class."""


class Network(nn.Module):
    """A network of some project."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=False)
        self.blocks = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Linear(2, 2))
        self.register_buffer("scratch", torch.ones(3), persistent=False)
        self.register_buffer("absent", None)
        self.register_parameter("nothing", None)
        self.meter = Meter()

    def forward(self, images):
        """Return something."""
        return self.blocks[1](self.conv(images))


def helper(value):
    """Return a value."""
    return value


@pytest.fixture
def project(monkeypatch):
    """The classes above as a module of a project; afterwards it cannot be imported."""
    module = types.ModuleType(PROJECT)
    monkeypatch.setitem(sys.modules, PROJECT, module)
    for thing in (Colour, Options, Meter, AttributeDict, Records, Network, helper):
        monkeypatch.setattr(thing, "__module__", PROJECT)
        setattr(module, thing.__name__, thing)
    return module


@pytest.fixture
def saved(project, torch_bytes, monkeypatch):
    """Return what writes a file with the project there, and takes the project away."""

    def write(content, **options):
        buffer = io.BytesIO()
        torch.save(content, buffer, **options)
        monkeypatch.delitem(sys.modules, PROJECT)
        return buffer.getvalue()

    return write


def random_states():
    """Return the random states that scripts keep."""
    return {
        "numpy": np.random.get_state(),  # noqa: NPY002  # what scripts keep
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": [torch.zeros(16, dtype=torch.uint8)],
    }


def optimizer():
    """Return an optimizer, a scheduler's way."""
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)


def omegaconf(tree):
    """Return a config of OmegaConf."""
    return pytest.importorskip("omegaconf").OmegaConf.create(tree)


OBJECTS = {
    "numpy float": (lambda: np.float64(1.5), {}, {"x": 1.5}),
    "numpy float32": (lambda: np.float32(1.5), {}, {"x": 1.5}),
    "numpy integer": (lambda: np.int64(3), {}, {"x": 3}),
    "numpy bool": (lambda: np.bool_(True), {}, {"x": True}),
    "numpy text": (lambda: np.str_("a"), {"numpy scalar": 1}, {}),
    "numpy array": (lambda: np.arange(3.0), {"numpy.ndarray": 1}, {}),
    "array of texts": (lambda: np.array(["a"]), {"numpy.ndarray of U1": 1}, {}),
    "array of objects": (
        lambda: np.array([None, {}], dtype=object),
        {"numpy.ndarray of O8": 1},
        {},
    ),
    "array of records": (
        lambda: np.zeros(2, dtype=[("a", "f4")]),
        {"numpy.ndarray of compound elements": 1},
        {},
    ),
    "random states": (
        random_states,
        {"numpy.ndarray of u4": 1, "long list of numbers": 1, "random state": 2},
        {"x/numpy/0": "MT19937", "x/python/0": 3},
    ),
    "numpy generator": (
        lambda: np.random.default_rng(0),
        {"numpy.random._pickle.__generator_ctor": 1},
        {},
    ),
    "torch generator": (torch.Generator, {"torch._C.Generator": 1}, {}),
    "path": (lambda: pathlib.PurePosixPath("/a"), {"pathlib.PurePosixPath": 1}, {}),
    "path of Windows": (lambda: pathlib.PureWindowsPath("a"), {"pathlib.PureWindowsPath": 1}, {}),
    "date": (lambda: datetime.datetime(2026, 1, 1), {"datetime.datetime": 1}, {}),
    "namespace": (
        lambda: argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/a"), f=helper),
        {"pathlib.PurePosixPath": 1, f"{PROJECT}.helper": 1},
        {"x/lr": 0.1},
    ),
    "simple namespace": (lambda: types.SimpleNamespace(lr=0.1), {}, {"x/lr": 0.1}),
    "OmegaConf": (
        lambda: omegaconf({"optimizer": {"lr": 0.1, "betas": [0.5, 0.9]}, "name": "${optimizer}"}),
        {},
        {"x/optimizer/lr": 0.1, "x/optimizer/betas/1": 0.9, "x/name": "${optimizer}"},
    ),
    "attribute dict": (lambda: AttributeDict(lr=0.1), {}, {"x/lr": 0.1}),
    "list of a class": (lambda: Records([1, 2]), {}, {"x/1": 2}),
    "enumeration": (lambda: Colour.RED, {f"{PROJECT}.Colour": 1}, {}),
    "enumeration as key": (lambda: {Colour.RED: 5}, {}, {f"x/{PROJECT}.Colour 0": 5}),
    "dataclass": (Options, {f"{PROJECT}.Options": 1}, {}),
    "object": (Meter, {f"{PROJECT}.Meter": 1}, {}),
    "class": (lambda: Meter, {f"{PROJECT}.Meter": 1}, {}),
    "function": (lambda: helper, {f"{PROJECT}.helper": 1}, {}),
    "method": (lambda: Meter().update, {f"{PROJECT}.Meter.update": 1}, {}),
    "partial": (lambda: functools.partial(helper, 3), {"functools.partial": 1}, {}),
    "counter": (lambda: collections.Counter("aab"), {}, {"x/a": 2}),
    "defaultdict": (lambda: collections.defaultdict(list, a=[1]), {}, {"x/a/0": 1}),
    "deque": (lambda: collections.deque([1, 2], maxlen=5), {}, {"x/0": 1, "x/1": 2}),
    "set": (lambda: {1, 2}, {"builtins.set": 1}, {}),
    "bytes": (lambda: b"abc", {"bytes": 1}, {}),
    "no bytes": (lambda: b"", {"bytes": 1}, {}),
    "history": (lambda: [0.5] * 300_000, {"long list of numbers": 1}, {}),
    "torch.Size": (lambda: torch.Size([1, 2]), {}, {"x/0": 1, "x/1": 2}),
    "torch.dtype": (lambda: torch.float16, {"torch.float16": 1}, {}),
    "torch.device": (lambda: torch.device("cuda:1"), {}, {"x": "cuda:1"}),
    "optimizer": (optimizer, {"torch.optim.sgd.SGD": 1}, {}),
    "scheduler": (
        lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), 5),
        {"torch.optim.lr_scheduler.CosineAnnealingLR": 1},
        {},
    ),
    "sparse tensor": (
        lambda: torch.eye(2).to_sparse(),
        {"torch._utils._rebuild_sparse_tensor": 1},
        {},
    ),
    "8-bit floats": (lambda: torch.ones(1).to(torch.float8_e5m2), {"tensor of float8_e5m2": 1}, {}),
    "tensor without data": (
        lambda: torch.ones(1, device="meta"),
        {"torch._utils._rebuild_meta_tensor_no_storage": 1},
        {},
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_what_stands_beside_the_weights_is_named(saved, read_bytes, kind):
    """The weights are read; plain values are read too, and everything else is listed by name."""
    make, passed_over, values = OBJECTS[kind]
    content = read_bytes(saved({"state_dict": WEIGHTS, "x": make()}))
    assert {name.removeprefix("state_dict/") for name in content.tensors} == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert torch.equal(content.tensors[f"state_dict/{name}"], tensor)
    assert content.passed_over == passed_over
    assert content.values.items() >= values.items()
    assert content.dangerous == ()


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_format_is_read_alike(saved, read_bytes, protocol, new_format):
    """pickle_protocol and the older format change nothing in what is found."""
    beside = {
        name: make()
        for name, (make, *_) in OBJECTS.items()
        if name not in ("torch generator", "8-bit floats", "sparse tensor")
    }
    data = saved(
        {"state_dict": WEIGHTS, "beside": beside},
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=new_format,
    )
    content = read_bytes(data)
    assert content.kind == ("torch.save" if new_format else "torch.save before 1.6")
    for name, tensor in WEIGHTS.items():
        assert torch.equal(content.tensors[f"state_dict/{name}"], tensor)
    assert len(content.tensors) == len(WEIGHTS)
    assert content.values["beside/numpy float"] == 1.5
    assert content.values["beside/OmegaConf/optimizer/lr"] == 0.1
    assert content.passed_over["pathlib.PurePosixPath"] == 2
    assert content.passed_over[f"{PROJECT}.Meter"] == 2


def assert_state(content, module, folder=""):
    """Compare a file with a module's state_dict."""
    state = {folder + name: tensor for name, tensor in module.state_dict().items()}
    assert content.tensors.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(content.tensors[name], tensor)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrap", [lambda module: module, nn.DataParallel])
def test_a_whole_network_is_its_state_dict(saved, read_bytes, protocol, new_format, wrap):
    """torch.save(model) gives what state_dict() gives, without the class being importable."""
    module = wrap(Network())
    data = saved(module, pickle_protocol=protocol, _use_new_zipfile_serialization=new_format)
    assert_state(read_bytes(data), module)


def test_a_whole_network_in_a_container(saved, read_bytes):
    """Under a key, names follow its path as those of a state_dict do."""
    module = Network()
    assert_state(read_bytes(saved({"model": module, "epoch": 3})), module, "model/")


def test_a_whole_network_in_a_plain_pickle(project, read_bytes):
    """pickle.dump(model) and pickle.dump(model.state_dict()) are read too."""
    module = Network()
    assert_state(read_bytes(pickle.dumps(module)), module)
    assert_state(read_bytes(pickle.dumps(module.state_dict(), protocol=2)), module)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program_is_its_state_dict(read_bytes):
    """torch.jit.save gives the network's names; its code is neither unpacked nor run."""
    module = Network().eval()
    for program in (torch.jit.script(module), torch.jit.trace(module, torch.ones(1, 1, 5, 5))):
        buffer = io.BytesIO()
        torch.jit.save(program, buffer)
        content = read_bytes(buffer.getvalue())
        assert content.kind == "torch.jit.save"
        for name, tensor in module.state_dict().items():
            assert torch.equal(content.tensors[name], tensor)


def test_an_object_that_is_the_whole_file_is_looked_into(saved, read_bytes):
    """A dataclass saved as it is holds its weights under its fields."""
    content = read_bytes(saved(Options(weights=dict(WEIGHTS))))
    assert content.tensors.keys() == {f"weights/{name}" for name in WEIGHTS}
    assert content.values == {"lr": 0.1}


def test_a_named_tuple_that_is_the_whole_file_is_looked_into(project, read_bytes, monkeypatch):
    """Its parts are found by their places, for the names are its class's."""
    kind = collections.namedtuple("State", ["weights", "epoch"])
    monkeypatch.setattr(kind, "__module__", PROJECT)
    project.State = kind
    content = read_bytes(pickle.dumps(kind({name: t.numpy() for name, t in WEIGHTS.items()}, 3)))
    assert content.tensors.keys() == {f"0/{name}" for name in WEIGHTS}
    assert content.values == {"1": 3}


class Share:
    """Stands in for a tensor spread over processes: in a pickle, a call of its class."""

    def __reduce__(self):
        return DTensor, ()


@pytest.mark.parametrize("beside", [{}, {"bn1.weight": torch.ones(2)}])
def test_shares_of_tensors_are_refused_with_the_way_out(tmp_path, beside):
    """One process's state_dict of FSDP lacks most numbers: the error says how to save all."""
    path = tmp_path / "rank0.pth"
    torch.save({"model": {"conv1.weight": Share(), "fc.weight": Share()} | beside}, path)
    whole = r"; 2 tensors are torch\.distributed\.tensor\.DTensor, .* full_state_dict=True"
    with pytest.raises(UserError, match=whole):
        import_weights(path, ImportOptions())


def test_many_kinds_and_long_names_are_bounded(read_bytes):
    """A file of a thousand classes, one called by 900 letters, does not fill a record."""
    classes = b"".join(b"cproject\nC%d\n" % number for number in range(1000))
    content = read_bytes(b"\x80\x02(cproject\n" + b"x" * 900 + b"\n" + classes + ARRAY + b"l.")
    assert len(content.passed_over) == 101
    assert content.passed_over["other object"] == 901
    assert max(len(name) for name in content.passed_over) == 200


def test_arrays_are_the_weights_where_there_are_no_tensors(saved, read_bytes):
    """torch.save of numpy arrays holds the same weights as of tensors, a best score beside them."""
    arrays = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
    content = read_bytes(saved(arrays | {"best": torch.tensor(75.0)}))
    assert content.passed_over == {}
    assert content.tensors.keys() == {*WEIGHTS, "best"}
    for name, tensor in WEIGHTS.items():
        assert torch.equal(content.tensors[name], tensor)


def test_tensors_of_every_plain_kind(saved, read_bytes):
    """Types, strides, offsets, shared storages, empty and single ones come out as they were."""
    base = torch.arange(24.0)
    tensors = {
        "transposed": base.reshape(4, 6).T,
        "steps": base[1::2],
        "offset": base[20:],
        "shared": base,
        "scalar": torch.tensor(5),
        "empty": torch.empty(0, 3),
        "parameter": nn.Parameter(torch.ones(2)),
        "complex": torch.ones(2, dtype=torch.complex64),
        "bits": torch.ones(2, 2, dtype=torch.uint8),
        "true": torch.tensor([True, False]),
    }
    for kind in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int16):
        tensors[str(kind)] = torch.ones(3, dtype=kind)
    for new_format in (True, False):
        content = read_bytes(saved_again(tensors, new_format))
        assert content.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert content.tensors[name].dtype == tensor.dtype
            assert torch.equal(content.tensors[name], tensor), name


def saved_again(content, new_format):
    """The bytes of a file."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


ARRAY = pickle.dumps(np.ones(1), protocol=2)[2:-1]
TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    b"ctorch\n%s\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQK%c(K%ct(K%ct\x89Nt%ss."
)


def tensor_file(kind=b"FloatStorage", size=4, offset=0, length=4, stride=1, call=b"R"):
    """A zip of sixteen bytes and a pickle that states one vector of them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        content = TENSOR % (kind, size, offset, length, stride, call)
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
    return buffer.getvalue()


def test_a_stated_vector_is_read(read_bytes):
    """Made by hand, as the following files are, it has the numbers that the file has."""
    assert read_bytes(tensor_file()).tensors["w"].tolist() == [0, 1, 2, 3]
    assert read_bytes(tensor_file(offset=1, length=2, stride=2)).tensors["w"].tolist() == [1, 3]
    assert read_bytes(tensor_file(length=0, offset=9)).tensors["w"].tolist() == []


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"size": 5}, "states tensors larger than the file"),
        ({"kind": b"DoubleStorage"}, "states tensors larger than the file"),
        ({"length": 5}, "states a shape beyond its data"),
        ({"offset": 1}, "states a shape beyond its data"),
        ({"length": 2, "stride": 4}, "states a shape beyond its data"),
        ({"stride": 0, "length": 5}, "states a shape beyond its data"),
        ({"kind": b"NoStorage"}, "a storage of torch.NoStorage, which is unknown"),
    ],
)
def test_no_tensor_reaches_beyond_its_data(read_bytes, stated, message):
    """Sizes, offsets and strides are compared with what the file has."""
    with pytest.raises(UserError, match=message):
        read_bytes(tensor_file(**stated))


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_an_attack_beside_weights_is_shown_and_never_run(tmp_path, protocol, new_format):
    """An import refuses the file by the name it calls; inspect shows that, and the weights."""
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return eval, (f"open({str(marker)!r}, 'w')",)

    path = tmp_path / "file.pth"
    torch.save(
        {"state_dict": WEIGHTS, "x": Attack()},
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=new_format,
    )
    with pytest.raises(UserError, match=r"made to run code: it refers to \w+\.eval\. None of it"):
        import_weights(path, ImportOptions())
    lines = describe_file(path)
    assert any(line.startswith("DANGER    it refers to ") for line in lines)
    assert any(line.startswith("  state_dict/conv ") for line in lines)
    assert any(line.startswith("ignored   1 other objects: 1 x ") for line in lines)
    assert look_at_file(path).dangerous[0].endswith(".eval")
    assert not marker.exists()


def test_inspect_shows_a_file_without_tensors(tmp_path):
    """A file that an import refuses for lack of tensors is described all the same."""
    path = tmp_path / "file.pth"
    torch.save({"epoch": 3, "out": tmp_path}, path)
    lines = describe_file(path)
    assert "tensors   none" in lines
    assert "value     epoch: 3" in lines
    assert "ignored   1 other objects: 1 x pathlib.PosixPath" in lines


def test_an_import_keeps_what_it_passed_over(network, tmp_path):
    """The provenance lists it, and reads back."""
    path = tmp_path / "file.pth"
    torch.save({"state_dict": network(), "out": tmp_path, "rng": random_states()}, path)
    metadata = write_import(path, tmp_path / "own.safetensors", ImportOptions())
    assert metadata.origin.passed_over["pathlib.PosixPath"] == 1
    assert metadata.origin.passed_over["random state"] == 2


def test_the_commands_say_what_was_passed_over(network, tmp_path, capsys):
    """An import prints it in one line; of an attack it prints one error and writes nothing."""
    path, out = tmp_path / "file.pth", tmp_path / "own.safetensors"
    torch.save({"state_dict": network(), "out": tmp_path, "sets": [{1}, {2}]}, path)
    assert main(["import", str(path), str(out)]) == 0
    assert (
        "ignored   3 other objects: 1 x pathlib.PosixPath, 2 x builtins.set"
        in capsys.readouterr().out
    )
    out.unlink()

    class Attack:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"state_dict": network(), "x": Attack()}, path)
    assert main(["import", str(path), str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "made to run code: it refers to __builtin__.eval" in error
    assert main(["inspect", str(path)]) == 0
    assert "DANGER    it refers to __builtin__.eval" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["file.pth"]
