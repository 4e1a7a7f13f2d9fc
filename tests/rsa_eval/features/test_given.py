"""Features in files that anyone may have written."""

import io
import os
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.given import read_features, read_given
from rsa_eval.features.identity import FeatureIdentity
from rsa_pretrain.plumbing.errors import UserError

N, D = 20, 4
FEATURES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
LABELS = np.arange(N) % 3
MUTANTS = 300

Arrays = dict[str, Any]
Write = Callable[[Path, Any, Any], Path]


def write_npz(folder: Path, features: Any, labels: Any) -> Path:
    """Write an archive as NumPy does, uncompressed."""
    np.savez(folder / "set.npz", features=features, labels=labels)
    return folder / "set.npz"


def write_packed_npz(folder: Path, features: Any, labels: Any) -> Path:
    """Write a compressed archive, named as scikit-learn's users do, with another array."""
    np.savez_compressed(folder / "packed.npz", X=features, y=labels, names=np.array(["a", "b"]))
    return folder / "packed.npz"


def write_npy(folder: Path, features: Any, labels: Any) -> Path:
    """Write a pair of arrays."""
    np.save(folder / "set.npy", features)
    np.save(folder / "set_labels.npy", labels)
    return folder / "set.npy"


def write_named_npy(folder: Path, features: Any, labels: Any) -> Path:
    """Write a pair of arrays, both named by their role."""
    np.save(folder / "train_features.npy", features)
    np.save(folder / "train_labels.npy", labels)
    return folder / "train_features.npy"


def write_safetensors(folder: Path, features: Any, labels: Any) -> Path:
    """Write tensors, one of them of no use here."""
    tensors = {"features": torch.tensor(features), "labels": torch.tensor(labels)}
    save_file(tensors | {"other": torch.zeros(3)}, folder / "set.safetensors")
    return folder / "set.safetensors"


WRITERS = (write_npz, write_packed_npz, write_npy, write_named_npy, write_safetensors)
NUMPY_WRITERS = WRITERS[:-1]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("label_type", ["uint8", "int32", "int64"])
def test_every_layout_and_type(write: Write, dtype: str, label_type: str, tmp_path: Path) -> None:
    """Features become float32, labels int64, and the file's type is kept for the record."""
    path = write(tmp_path, FEATURES.astype(dtype), LABELS.astype(label_type))
    given = read_given(path)
    expected = torch.from_numpy(FEATURES.astype(dtype).astype(np.float32))
    assert given.labelled.features.dtype == torch.float32
    assert torch.equal(given.labelled.features, expected)
    assert given.labelled.labels.dtype == torch.int64
    assert given.labelled.labels.tolist() == LABELS.tolist()
    assert given.stored_type == dtype


def test_bfloat16_and_unlabelled_images(tmp_path: Path) -> None:
    """A type that NumPy lacks; the label -1 is an image without class."""
    features = torch.from_numpy(FEATURES).bfloat16()
    save_file({"x": features, "y": torch.full((N,), -1)}, tmp_path / "a.safetensors")
    given = read_given(tmp_path / "a.safetensors")
    assert torch.equal(given.labelled.features, features.float())
    assert set(given.labelled.labels.tolist()) == {-1}
    assert given.stored_type == "bfloat16"


@pytest.mark.parametrize("write", NUMPY_WRITERS)
def test_orders_of_bytes_and_axes(write: Write, tmp_path: Path) -> None:
    """Fortran's order and big-endian numbers are other layouts of the same values."""
    path = write(tmp_path, np.asfortranarray(FEATURES.astype(">f4")), LABELS.astype(">i2"))
    found = read_features(path)
    assert torch.equal(found.features, torch.from_numpy(FEATURES))
    assert found.features.is_contiguous()
    assert found.labels.tolist() == LABELS.tolist()


def test_a_cache_of_the_toolkit(tmp_path: Path) -> None:
    """Its identity is read with it, and its checksum is checked."""
    identity = FeatureIdentity(
        format_version=2,
        weights="w",
        images="i",
        transform="t",
        layers=("layer4",),
        precision="fp32",
        feature_dtype="fp16",
        library_versions={},
    )
    labels = torch.from_numpy(LABELS)
    entry = CacheEntry(tmp_path, "digits", identity, labels, D, torch.float16)
    rows = torch.from_numpy(FEATURES)
    entry.ensure(len(rows), torch.device("cpu"), lambda own: ((0, rows) for _ in own))
    given = read_given(entry.path)
    assert torch.equal(given.labelled.features, torch.from_numpy(FEATURES).half().float())
    assert given.labelled.labels.tolist() == LABELS.tolist()
    assert given.identity == identity
    content = bytearray(entry.path.read_bytes())
    content[-1] ^= 1
    entry.path.write_bytes(content)
    with pytest.raises(UserError, match="another content than its checksum states"):
        read_features(entry.path)


@pytest.mark.parametrize("write", [write_npy, write_safetensors])
def test_float32_files_are_mapped(write: Write, tmp_path: Path) -> None:
    """Features need not be in memory twice, and the file never changes."""
    path = write(tmp_path, FEATURES, LABELS)
    before = path.read_bytes()
    found = read_features(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    found.features.zero_()
    assert path.read_bytes() == before


ARRAYS: list[tuple[Arrays, str]] = [
    ({"features": np.zeros((0, D), np.float32)}, r"features of shape \(0, 4\); expected \(N, D\)"),
    ({"features": np.zeros((N, 0), np.float32)}, r"features of shape \(20, 0\)"),
    ({"features": FEATURES[0]}, r"features of shape \(4,\); expected \(N, D\)"),
    ({"features": FEATURES[None]}, r"features of shape \(1, 20, 4\)"),
    ({"features": np.array(1.5)}, r"features of shape \(\)"),
    ({"labels": LABELS[:-1]}, "19 labels, but .*features of 20 images; expected a label for each"),
    ({"labels": LABELS[:, None]}, r"labels of shape \(20, 1\); expected \(20,\)"),
    (
        {"labels": LABELS.astype(np.float64)},
        r"labels of type (torch\.)?float64; expected integers: store labels",
    ),
    ({"labels": LABELS.astype(bool)}, r"labels of type (torch\.)?bool; expected integers"),
    ({"labels": LABELS - 2}, "the label -2; expected class indices from 0 on"),
    ({"labels": LABELS + 2**20}, "the label 1048578; expected class indices below 1,048,576"),
    ({"features": FEATURES.astype(np.complex64)}, r"features of type (torch\.)?complex64"),
    ({"labels": LABELS.astype(np.complex64)}, r"labels of type (torch\.)?complex64"),
    (
        {"features": FEATURES.astype(np.int64)},
        r"features of type (torch\.)?int64; expected float32",
    ),
    (
        {"features": np.where(np.arange(N * D).reshape(N, D) == 14, np.nan, FEATURES)},
        "1 of 20 images in .* not finite in float32",
    ),
    ({"features": FEATURES.astype(np.float64) * 1e300}, "20 of 20 images in .* not finite"),
    ({"features": FEATURES * np.float32(1e16)}, r"the largest feature .* 2\.\d+e\+16 in size"),
    ({"features": FEATURES * np.float32(1e-12)}, r"2\.\d+e-12 in size; expected 1e-10 to 1e\+15"),
    ({"features": FEATURES * np.float32(0)}, "is 0 in size; expected .* multiply all features"),
]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("changes", "error"), ARRAYS)
def test_arrays_that_are_no_labelled_features(
    write: Write, changes: Arrays, error: str, tmp_path: Path
) -> None:
    """Each is named with its file, what was found and what is expected."""
    arrays = {"features": FEATURES, "labels": LABELS} | changes
    path = write(tmp_path, arrays["features"], arrays["labels"])
    with pytest.raises(UserError, match=error) as caught:
        read_features(path)
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize("write", NUMPY_WRITERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"features": np.array([[object()] * D] * N)},
        {"labels": np.array(["cat"] * N)},
        {"labels": np.array([{}] * N)},
        {"features": np.zeros(N, dtype=[("a", "f4"), ("b", "f4")])},
        {"labels": np.array(["2020-01-01"] * N, dtype="datetime64[D]")},
    ],
)
def test_nothing_is_unpickled(
    write: Write, changes: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects, text, records and dates are refused by the header alone."""
    arrays = {"features": FEATURES, "labels": LABELS} | changes
    path = write(tmp_path, arrays["features"], arrays["labels"])
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", None)
    with pytest.raises(UserError, match=r"no(t read; expected numbers|t an array of numbers)"):
        read_features(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A message for each way of not being a file of features; a pipe does not block."""
    cases = {
        "absent.npz": "No such file or directory; expected a .npz or .safetensors file",
        "folder.npz": "is a folder; expected a .npz",
        "pipe.npy": "is a pipe or a device; expected",
        "empty.npy": "is empty; expected",
        "vectors.csv": "ends in '.csv'; expected a .npz",
        "weights.pt": "ends in '.pt'; expected a .npz",
        "text.npz": "is not a complete .npz file",
        "text.npy": "is not an array of numbers as numpy.save writes it",
        "text.safetensors": "is not a complete safetensors file",
        "a_labels.npy": "is named like a file of labels",
        "alone.npy": "alone_labels.npy': No such file or directory; expected the labels of 'alone",
    }
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "empty.npy").touch()
    for name in ("vectors.csv", "weights.pt", "text.npz", "text.npy", "text.safetensors"):
        (tmp_path / name).write_text("1, 2, 3\n" * 100)
        (tmp_path / "text_labels.npy").write_text("1, 2, 3\n")
    np.save(tmp_path / "alone.npy", FEATURES)
    np.save(tmp_path / "a_labels.npy", LABELS)
    for name, error in cases.items():
        with pytest.raises(UserError) as caught:
            read_features(tmp_path / name)
        assert error in str(caught.value)
        assert str(tmp_path / name.split(".")[0].removesuffix("_labels")) in str(caught.value)
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    with pytest.raises(UserError, match="Too many levels of symbolic links"):
        read_features(tmp_path / "loop.npz")


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    """The reason is the system's."""
    path = write_npz(tmp_path, FEATURES, LABELS)
    path.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        read_features(path)


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"features": FEATURES}, "has arrays 'features'; expected features and labels or X and y"),
        ({"embeddings": FEATURES, "targets": LABELS}, "has arrays 'embeddings', 'targets'; exp"),
        (
            {"features": FEATURES, "labels": LABELS, "X": FEATURES, "y": LABELS},
            "expected features and labels or X and y or x and y, and not several of these",
        ),
        ({}, "has arrays none; expected"),
    ],
)
def test_names_of_arrays(arrays: Arrays, error: str, tmp_path: Path) -> None:
    """One of three pairs of names, and one only."""
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(UserError, match=error):
        read_features(tmp_path / "set.npz")
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    save_file(tensors, tmp_path / "set.safetensors")
    with pytest.raises(UserError, match=error.replace("arrays", "tensors")):
        read_features(tmp_path / "set.safetensors")


def _npy(shape: tuple[int, ...], dtype: str = "<f4", content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + content


def _archive(path: Path, features: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("features.npy", features)
        archive.writestr("labels.npy", labels.getvalue())
    return path


@pytest.mark.parametrize("shape", [(10**18, D), (2**62, 2**62), (N, 10**12), (-1, D)])
def test_sizes_that_headers_claim(shape: tuple[int, ...], tmp_path: Path) -> None:
    """No memory is allocated for bytes that are not in the file."""
    error = "do not fit shape|bytes after its header, expected|states the shape"
    (tmp_path / "a.npy").write_bytes(_npy(shape, content=bytes(64)))
    np.save(tmp_path / "a_labels.npy", LABELS)
    _archive(tmp_path / "a.npz", _npy(shape, content=bytes(64)))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match=error):
            read_features(tmp_path / name)
    text = (
        f'{{"features":{{"dtype":"F32","shape":[{shape[0]},{shape[1]}],"data_offsets":[0,64]}},'
        '"labels":{"dtype":"I64","shape":[8],"data_offsets":[64,128]}}'
    ).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(128))
    with pytest.raises(UserError, match="not a complete safetensors file"):
        read_features(path)


def test_an_archive_that_lies_about_its_size(tmp_path: Path) -> None:
    """A few packed bytes cannot hold gigabytes, whatever the archive's directory says."""
    start = _npy((700_000_000, 1))
    path = _archive(tmp_path / "a.npz", start, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, place + 24, len(start) + 4 * 700_000_000)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"packed into .*, which do not fit shape"):
        read_features(path)


def test_archives_that_numpy_does_not_write(tmp_path: Path) -> None:
    """Other compressions, an array twice, and a flipped bit."""
    features = _npy((N, D), content=FEATURES.tobytes())
    with pytest.raises(UserError, match=r"packed in another way than by numpy\.savez"):
        read_features(_archive(tmp_path / "a.npz", features, zipfile.ZIP_BZIP2))
    path = _archive(tmp_path / "b.npz", features)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("features.npy", features)
    with pytest.raises(UserError, match="two arrays named 'features'; expected one"):
        read_features(path)
    content = bytearray(_archive(tmp_path / "c.npz", features).read_bytes())
    content[content.index(FEATURES.tobytes())] ^= 1
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_features(tmp_path / "c.npz")


@pytest.mark.parametrize("write", WRITERS)
def test_truncated_files(write: Write, tmp_path: Path) -> None:
    """No shorter file is read as one with fewer images."""
    path = write(tmp_path, FEATURES, LABELS)
    content = path.read_bytes()
    for length in (*range(0, len(content), 37), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            read_features(path)
    if path.suffix != ".npz":  # an archive may be followed by other bytes
        path.write_bytes(content + b"x")
        with pytest.raises(UserError, match=r"bytes after its header|not a complete safetensors"):
            read_features(path)


@pytest.mark.parametrize("write", [write_npz, write_packed_npz, write_npy, write_safetensors])
def test_mutated_files(write: Write, tmp_path: Path) -> None:
    """Some bytes changed give a user's error or what the bytes say, and nothing else.

    An archive has checksums: its arrays are the right ones, or refused.
    """
    path = write(tmp_path, FEATURES, LABELS)
    content, draws, num_read = path.read_bytes(), random.Random(0), 0
    for _ in range(MUTANTS):
        mutant = bytearray(content)
        most = 200 if draws.random() < 0.5 else len(mutant)
        for _ in range(draws.choice([1, 1, 2, 8])):
            mutant[draws.randrange(most)] = draws.randrange(256)
        path.write_bytes(mutant)
        try:
            found = read_features(path)
        except UserError:
            continue
        num_read += 1
        assert found.features.shape[0] == found.labels.shape[0]
        assert found.features.isfinite().all()
        assert found.labels.min() >= -1
        if path.suffix == ".npz":
            assert torch.equal(found.features, torch.from_numpy(FEATURES))
            assert found.labels.tolist() == LABELS.tolist()
    assert 0 < num_read < MUTANTS


@pytest.mark.process
def test_memory_of_a_large_file(tmp_path: Path) -> None:
    """Reading 128 MiB of float32 features allocates less than a quarter of that."""
    features = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (2**15, 2**10))
    features[0] = 1
    features.flush()
    np.save(tmp_path / "a_labels.npy", np.zeros(2**15, np.int64))
    code = (
        "from rsa_eval.features.given import read_features\n"
        "def private():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return sum(int(line.split()[1]) for line in lines if line.startswith('RssAnon'))\n"
        "before = private()\n"
        f"found = read_features({str(tmp_path / 'a.npy')!r})\n"
        "print(private() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**15  # KiB
