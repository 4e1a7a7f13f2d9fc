import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.files.regular_file import check_regular_file

EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


def same_tensors(content, wanted):
    """Return whether a file gave exactly these tensors."""
    return content.tensors.keys() == wanted.keys() and all(
        content.tensors[name].dtype == wanted[name].dtype
        and torch.equal(content.tensors[name], wanted[name])
        for name in wanted
    )


def test_every_kind_of_file_is_read(small_files, small_tensors, read_bytes):
    """Both torch formats, safetensors and array pickles give the same tensors by path."""
    for kind, data in small_files.items():
        content = read_bytes(data)
        assert content.kind == kind
        assert same_tensors(content, small_tensors), kind
    values = read_bytes(small_files["torch.save"]).values
    assert values["epoch"] == 3
    assert values["args/lr"] == 0.1
    assert values["args/nested/a/1"] == 2


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_protocol_and_order_are_read(read_bytes, protocol):
    """Old protocols write bytes as text; Fortran order, big endian and scalars come out right."""
    arrays = {
        "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "scalar": np.array(5, dtype=np.int64),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }
    content = read_bytes(pickle.dumps(arrays, protocol=protocol))
    wanted = {
        name: torch.tensor(array.astype(array.dtype.newbyteorder("=")))
        for name, array in arrays.items()
    }
    assert same_tensors(content, wanted)


def rewritten_zip(data, change=None, *, compression=zipfile.ZIP_STORED, extra=()):
    """The same archive, its pickle changed, its members compressed or more of them."""
    source = zipfile.ZipFile(io.BytesIO(data))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for member in source.infolist():
            content = source.read(member)
            if change is not None and member.filename.endswith(change[0]):
                content = change[1](content)
            target.writestr(member.filename, content)
        for name, content in extra:
            target.writestr(name, content)
    return buffer.getvalue()


def test_stated_sizes_are_bounded_before_they_are_believed(torch_bytes, read_bytes):
    """Compressed members, storages beyond the file and shapes beyond their storage are refused."""
    whole = torch_bytes({"w": torch.arange(1000.0)})
    assert same_tensors(read_bytes(rewritten_zip(whole)), {"w": torch.arange(1000.0)})
    huge = b"J" + struct.pack("<i", 2**31 - 1)
    cases = {
        "has compressed or encrypted": rewritten_zip(whole, compression=zipfile.ZIP_DEFLATED),
        "states tensors larger than the file|beyond its data|damaged": rewritten_zip(
            whole, ("data.pkl", lambda data: data.replace(b"M\xe8\x03", huge))
        ),
        "not little-endian": rewritten_zip(whole, ("byteorder", lambda data: b"big")),
        "checksum of '.*data/0' is wrong": whole.replace(
            np.float32(999).tobytes(), np.float32(998).tobytes()
        ),
        r"is a zip without data.pkl \(it contains a/b\)": rewritten_zip(
            EMPTY_ZIP, extra=[("a/b", b"")]
        ),
        "is a program of torch.export": rewritten_zip(
            EMPTY_ZIP, extra=[("a/archive_format", b"pt2"), ("a/models/model.json", b"{}")]
        ),
        "is a Keras model": rewritten_zip(EMPTY_ZIP, extra=[("model.weights.h5", b"")]),
        "TorchScript program from before": rewritten_zip(
            whole, extra=[("archive/model.json", b"")]
        ),
    }
    for message, data in cases.items():
        with pytest.raises(UserError, match=message):
            read_bytes(data)
    with pytest.raises(UserError, match="states a shape beyond its data"):
        read_bytes(torch_bytes({"w": torch.ones(1).expand(10**9)}))
    legacy = torch_bytes({"w": torch.arange(1000.0)}, legacy=True)
    with pytest.raises(UserError, match=r"states tensors larger than the file|is damaged"):
        read_bytes(legacy.replace(b"M\xe8\x03", huge))
    flag = legacy.index(b"\x88", legacy.index(b"little_endian"))
    swapped = legacy[:flag] + b"\x89" + legacy[flag + 1 :]
    with pytest.raises(UserError, match="was not written on a little-endian machine"):
        read_bytes(swapped)


def test_safetensors_headers_are_bounded(small_files, read_bytes):
    """Headers longer than the file, of the other byte order or with absurd shapes are refused."""
    data = small_files["safetensors"]
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    entry = header["state_dict/conv.weight"]

    def with_header(changed):
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    shape = with_header(header | {"state_dict/conv.weight": entry | {"shape": [2**40, 2**40]}})
    kind = with_header(header | {"state_dict/conv.weight": entry | {"dtype": "F99"}})
    for changed, message in (
        (struct.pack("<Q", 2**60) + data[8:], "is not a checkpoint"),
        (data[:8][::-1] + data[8:], "is not a checkpoint"),
        (shape, "is not a complete safetensors file"),
        (kind, "is not a complete safetensors file"),
        (data[:-4], "is not a complete safetensors file"),
        (data + b"more", "is not a complete safetensors file"),
    ):
        with pytest.raises(UserError, match=message):
            read_bytes(changed)


def test_files_that_are_no_files_are_refused(tmp_path):
    """Folders, pipes, devices, loops, absent and empty files get one clear error each."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "empty").touch()
    for name, message in (
        ("", "is a folder; expected one checkpoint file"),
        ("pipe", "is a pipe or a device"),
        ("loop", "cannot be opened: Too many levels of symbolic links"),
        ("absent", "does not exist; expected a run folder"),
        ("empty", "is empty"),
        ("/dev/zero", "is a pipe or a device"),
    ):
        with pytest.raises(UserError, match=message):
            read_checkpoint_file(tmp_path / name)


def test_a_file_beyond_any_resnet_is_refused(tmp_path):
    """A sparse file of 5 GB is refused by its size, not read."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(5 * 10**9)
    with pytest.raises(UserError, match="has 5000000000 bytes; expected at most"):
        check_regular_file(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html>", "is a web page; download the file itself"),
        (b"\xef\xbb\xbf\r\n<html>", "is a web page; download the file itself"),
        (b'{"weight_map": {}}', "is JSON text"),
        (b"\x1f\x8b\x08\x00", "is a gzip archive"),
        (b"BZh91AY", "is a bzip2 archive"),
        (b"\xfd7zXZ\x00", "is an xz archive"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        (b"model.pth" + bytes(248) + b"ustar\x0000" + bytes(248), "is a tar archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes"),
        (b"\x08\x07\x12\x07pytorch", "is an ONNX or TensorFlow file; save the state_dict"),
        (b"\x93NUMPY\x01\x00", "is one numpy array"),
        (b"GGUF\x03\x00", "is a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"just text", "is not a checkpoint .it starts with 6a 75 73 74"),
        (b"PK\x03\x04 and no archive", "is damaged and cannot be read as a torch checkpoint"),
        (pickle.dumps({"epoch": 3}), "contains no tensors"),
        (pickle.dumps([]), "contains no tensors"),
    ],
)
def test_other_files_are_named(read_bytes, data, message):
    """Frequent mistakes are named in the error."""
    with pytest.raises(UserError, match=message):
        read_bytes(data)
