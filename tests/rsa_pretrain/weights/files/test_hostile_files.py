import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import load_backbone
from rsa_pretrain.weights.files.danger import dangerous
from rsa_pretrain.weights.files.numpy_builders import ARRAY_BUILDERS
from rsa_pretrain.weights.files.pickle_reader import PickleReader
from rsa_pretrain.weights.files.stand_in import Name
from rsa_pretrain.weights.foreign.describe import describe_file

KINDS = ["torch.save", "torch.save before 1.6", "safetensors", "pickle"]


class Marker:
    """Unpickling an instance creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "pickle in a zip"])
def test_malicious_pickles_never_run(torch_bytes, read_bytes, tmp_path, kind):
    """The code that a file names is not called, and the error names it."""
    marker = tmp_path / "ran"
    content = {"state_dict": {"w": torch.ones(2)}, "x": Marker(marker)}
    if kind == "pickle":
        data = pickle.dumps({"model": Marker(marker)})
    elif kind == "pickle in a zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Marker(marker), protocol=2))
            archive.writestr("archive/version", "3")
        data = buffer.getvalue()
    else:
        data = torch_bytes(content, legacy=kind == "legacy")
    name = r"made to run code: it refers to (\w*io|__builtin__|builtins)\.open"
    with pytest.raises(UserError, match=name):
        read_bytes(data)
    assert not marker.exists()


def test_other_classes_are_named(torch_bytes, read_bytes, tmp_path):
    """A class of some project is passed over by its name, and the weights are read."""
    content = read_bytes(torch_bytes({"w": torch.ones(2), "p": tmp_path}))
    assert list(content.tensors) == ["w"]
    assert content.passed_over == {"pathlib.PosixPath": 1}


def read_pickle(data):
    """Return the contents of a pickle of arrays."""
    return PickleReader(ARRAY_BUILDERS).read(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04\x95\x00", "it is damaged"),
        (b"\x80\x02\x82\x01.", "it refers to extension 1"),
        # Attributes for a class by BUILD with a slot state.
        (
            b"\x80\x02cnumpy\nndarray\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
            "changes an object that it did not make",
        ),
        # A first shape of 2**40 elements: numpy would reserve the memory.
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
            b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85U\x01b\x87R.",
            "an array that does not start empty",
        ),
        (b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00ab.", "it is damaged"),
        # A text of 2**31 bytes in a file of ten.
        (b"\x80\x02X\xff\xff\xff\x7fab.", "it is damaged"),
        # A number of 2**31 bytes in a file of ten.
        (b"\x80\x02\x8b\xff\xff\xff\x7fab.", "it is damaged"),
        (b"\x80\x02K\x01K\x02R.", "it calls with arguments that are not a tuple"),
        (b"\x80\x02K\x01)R.", "it calls an object that is not a class or function"),
        (b"\x80\x04K\x01K\x02\x93.", "it refers to a name that is not text"),
        (b"\x80\x02K\x01K\x02a.", "it appends to an object that is not a list"),
        (b"\x80\x02K\x01K\x02K\x03s.", "it sets keys of an object that is not a mapping"),
        (b"\x80\x02ca\n" + b"a." * 10**6 + b"a\n.", "it refers to a name of over 1000 letters"),
        (b"\x80\x05\x97.", "it has opcode NEXT_BUFFER"),
        (b"\x80\x02K\x01Q.", "it refers to data outside the pickle"),
        (b"\x80\x020000.", "it is damaged"),
        (b"\x80\x02" + b"N" * 2_000_001 + b".", "it has more than 2000000 opcodes"),
    ],
)
def test_the_pickle_reader_believes_nothing(data, message):
    """Names, stated lengths and shapes reserve and change nothing."""
    with pytest.raises(pickle.UnpicklingError, match=message):
        read_pickle(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85\x81.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85}\x92.", "os.system"),
        # ndarray called with a shape: numpy would reserve the memory.
        (b"\x80\x02cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85\x85R.", "numpy.ndarray"),
        (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R.", None),
        # A memo index of 2**31: the C unpickler would reserve a table of that length.
        (b"\x80\x02Nr\xff\xff\xff\x7f.", None),
    ],
)
def test_calls_are_kept_by_name_and_not_made(data, name):
    """For every opcode that calls, a stand-in replaces the returned object."""
    found = read_pickle(data)
    assert getattr(found, "name", None) == name


@pytest.mark.parametrize(
    ("module", "qualified", "harm"),
    [
        ("os", "system", True),
        ("posix", "system", True),
        ("nt", "system", True),
        ("subprocess", "Popen", True),
        ("builtins", "eval", True),
        ("__builtin__", "execfile", True),
        ("builtins", "__import__", True),
        ("torch.hub", "load", True),
        ("torch", "hub.load", True),
        ("torch.serialization", "os.system", True),
        ("importlib", "import_module", True),
        ("_io", "open", True),
        ("_io", "BytesIO", False),
        ("builtins", "getattr", False),
        ("pathlib", "PosixPath", False),
        ("builtins", "eval.__call__", True),
        ("os", "system.__call__", True),
        ("project.os", "Reader", False),
        ("code.models.resnet", "ResNet", False),
        ("code", "InteractiveConsole", True),
        ("project", "Outer.Inner", False),
    ],
)
def test_harm_is_told_from_classes_of_a_project(module, qualified, harm):
    """Only names that run commands or code, or open files and connections, refuse a file."""
    assert bool(dangerous([Name(module, qualified)])) == harm


def test_a_chain_of_attributes_is_named(read_bytes):
    """Reaching a command through getattr of another module is found, whatever it starts from."""
    chain = (
        b"\x80\x02cbuiltins\ngetattr\ncbuiltins\ngetattr\nctorch\nserialization\n"
        b"X\x02\x00\x00\x00os\x86RX\x06\x00\x00\x00system\x86RX\x04\x00\x00\x00true\x85R."
    )
    with pytest.raises(UserError, match=r"it refers to torch\.serialization\.os\.system"):
        read_bytes(chain)


def test_keys_that_nest_without_end_cost_nothing(read_bytes):
    """A key of tuples that share parts 60 levels deep is not hashed, but named."""
    nested = b"K\x01\x85" + b"2\x86" * 60
    data = b"\x80\x02}" + nested + b"K\x05sX\x01\x00\x00\x00wcnumpy\nndarray\ns."
    content = read_pickle(data)
    assert [str(key) for key in content] == ["tuple", "w"]
    with pytest.raises(UserError, match=r"contains no tensors \(but numpy.ndarray\)"):
        read_bytes(data)


def test_shared_and_nested_containers_are_bounded(torch_bytes, read_bytes):
    """Lists that hold one another exponentially often, or deeply, or in a ring, are refused."""
    shared = [1.0, 2.0]
    for _ in range(25):
        shared = [shared, shared]
    deep = []
    for _ in range(100):
        deep = [deep]
    ring = []
    ring.append(ring)
    for content in (shared, deep, ring):
        tree = {"w": torch.ones(1), "x": content}
        with pytest.raises(UserError, match="is nested more deeply than a checkpoint"):
            read_bytes(torch_bytes(tree))
        with pytest.raises(UserError, match=r"nest(s too deeply|ed more deeply than)"):
            read_bytes(pickle.dumps({"w": np.ones(1), "x": content}))


def test_tensors_shared_without_end_are_refused(torch_bytes, read_bytes):
    """One tensor under a few names is read; under a thousand, as a bomb is, it is refused."""
    tensor = torch.ones(10_000)
    content = read_bytes(torch_bytes({f"w{number}": tensor for number in range(50)}))
    assert len(content.tensors) == 50
    with pytest.raises(UserError, match="contains the same tensors more than 64 times over"):
        read_bytes(torch_bytes({f"w{number}": tensor for number in range(1000)}))


def test_text_of_a_file_cannot_steer_a_terminal(torch_bytes, read_bytes, tmp_path):
    """Escape sequences in keys, class names and values are refused or made visible."""
    with pytest.raises(UserError, match="contains an invalid name: w\N{REPLACEMENT CHARACTER}"):
        read_bytes(torch_bytes({"w\x1b[2J": torch.ones(1)}))
    with pytest.raises(UserError, match="it refers to os\\.\N{REPLACEMENT CHARACTER}"):
        read_bytes(b"\x80\x02cos\n\x1b[2J\n.")
    path = tmp_path / "x.pth"
    path.write_bytes(torch_bytes({"w": torch.ones(1), "note": "a\x1b[2Jb"}))
    assert "\x1b" not in "".join(describe_file(path))


def test_absurd_names_and_numbers_are_refused(torch_bytes, read_bytes):
    """Names of a million letters and integers of a thousand digits are not printed or computed."""
    with pytest.raises(UserError, match="contains an invalid name: aaaa") as error:
        read_bytes(torch_bytes({"a" * 10**6: torch.ones(1)}))
    assert len(str(error.value)) < 1000
    with pytest.raises(UserError, match="contains a number of 10001 bits, 'epoch'"):
        read_bytes(pickle.dumps({"w": np.ones(1), "epoch": 2**10_000}))
    with pytest.raises(UserError, match="contains a number of 10001 bits, 'epoch'"):
        read_bytes(torch_bytes({"w": torch.ones(1), "epoch": 2**10_000}))
    content = read_bytes(torch_bytes({(1, 2): torch.ones(1), (3, 4): torch.ones(2), None: 5}))
    assert set(content.tensors) == {"tuple 0", "tuple 1"}


def test_metadata_nested_without_end_is_refused(tmp_path):
    """JSON that is a thousand brackets deep is damage, not a failure of the parser."""
    deep = "[" * 100_000
    save_file({"w": torch.ones(1)}, tmp_path / "x.safetensors", {"rsa_toolkit": deep})
    with pytest.raises(UserError, match=r"the metadata of .* is not JSON; restore the file"):
        load_backbone(tmp_path / "x.safetensors")
    assert any("damaged metadata" in line for line in describe_file(tmp_path / "x.safetensors"))


def test_one_name_for_two_tensors_is_refused(torch_bytes, read_bytes):
    """Keys 1 and '1' would be one path, and one of the tensors would be lost."""
    with pytest.raises(UserError, match="contains 'a/1' twice"):
        read_bytes(torch_bytes({"a": {1: torch.ones(1), "1": torch.zeros(1)}}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_refused(small_files, read_bytes, kind):
    """A file cut anywhere raises the toolkit's error, and no other."""
    data = small_files[kind]
    for size in sorted({*range(1, len(data), max(1, len(data) // 60)), len(data) - 1}):
        with pytest.raises(UserError, match=r"file\.bin'"):
            read_bytes(data[:size])


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "delete", "insert", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data, mutations):
    """Bytes after some changes; places are shares of the length."""
    changed = bytearray(data)
    for kind, share, value in mutations:
        place = int(share * len(changed))
        if not changed:
            break
        if kind == "flip":
            changed[place] ^= 1 << (value % 8)
        elif kind == "set":
            changed[place] = value
        elif kind == "delete":
            del changed[place : place + 1 + value % 16]
        elif kind == "insert":
            changed[place:place] = bytes([value]) * (1 + value % 16)
        else:
            del changed[place:]
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mutations=MUTATIONS)
def test_any_mutation_loads_or_raises_the_toolkits_error(
    small_files, small_tensors, read_bytes, kind, mutations
):
    """A changed file gives tensors or a UserError, never another exception.

    torch's zip has checksums, so what loads there is what was saved. The other formats have none:
    a changed number is a valid file of another number.
    """
    try:
        content = read_bytes(mutated(small_files[kind], mutations))
    except UserError:
        return
    if kind == "torch.save":
        assert content.tensors.keys() == small_tensors.keys()
        for name, tensor in small_tensors.items():
            assert torch.equal(content.tensors[name], tensor)
