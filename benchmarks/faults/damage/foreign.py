"""Checkpoints of other projects in every format, small ones with the same tensors.

A file that is read is then compared as in an import: names, shapes and types must be those of the
network, or it is refused.
"""

import argparse
import io
import pickle
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from benchmarks.faults.damage.mutants import Mutate, mutate, mutate_header, mutate_inside_zip
from benchmarks.faults.damage.trials import Kind
from rsa_eval.features.identity import tensors_sha256
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.tensor_check import check_tensors

TENSORS = {
    f"layer{block}.{name}": tensor
    for block in range(4)
    for name, tensor in {
        "conv.weight": torch.arange(72.0).reshape(4, 2, 3, 3) + block,
        "norm.bias": torch.linspace(-1, 1, 4) * (block + 1),
        "norm.num_batches_tracked": torch.tensor(7 + block),
    }.items()
}
VALUES = {"epoch": 3, "args": argparse.Namespace(lr=0.1, schedule=[120, 160])}


def torch_file(content: Any, protocol: int = 2, *, legacy: bool = False) -> bytes:
    """Return a torch.save file, in the format before PyTorch 1.6 if ``legacy``."""
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def plain() -> dict[str, Any]:
    """Return weights and settings."""
    return {**TENSORS, **VALUES}


def beside() -> dict[str, Any]:
    """Return weights and objects that scripts save beside them."""
    others = {
        "numpy": np.random.default_rng(0),
        "rng": torch.get_rng_state(),
        "scalar": np.float64(0.5),
        "names": np.array(["a", "b"]),
        "out": PurePosixPath("/a"),
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "method": nn.ReLU().forward,
        "counts": Counter("aab"),
        "classes": {1, 2},
    }
    return plain() | {"beside": others}


def whole_network() -> nn.Module:
    """Return a network with the weights under their names, to be pickled whole."""
    root = nn.Module()
    for name, tensor in TENSORS.items():
        *folders, leaf = name.split(".")
        module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module.get_submodule(folder)
        module.register_buffer(leaf, tensor)
    return root


def array_pickle() -> bytes:
    """Return a plain pickle of numpy arrays."""
    arrays = {name: tensor.numpy() for name, tensor in TENSORS.items()}
    return pickle.dumps({**arrays, "epoch": 3}, protocol=4)


_FORMATS: dict[str, tuple[Callable[[], bytes], Mutate]] = {
    "torch.save": (lambda: torch_file(plain()), mutate),
    "torch.save, pickle changed inside": (lambda: torch_file(plain()), mutate_inside_zip),
    "torch.save before 1.6": (lambda: torch_file(plain(), legacy=True), mutate),
    "other objects, pickle changed inside": (lambda: torch_file(beside()), mutate_inside_zip),
    "other objects, protocol 5, before 1.6": (
        lambda: torch_file(beside(), protocol=5, legacy=True),
        mutate,
    ),
    "whole network, pickle changed inside": (
        lambda: torch_file(whole_network(), protocol=4),
        mutate_inside_zip,
    ),
    "whole network before 1.6": (lambda: torch_file(whole_network(), legacy=True), mutate),
    "safetensors": (lambda: save(TENSORS), mutate),
    "safetensors, header changed": (lambda: save(TENSORS), mutate_header),
    "pickle of numpy arrays": (array_pickle, mutate),
    "pickle of tensors": (lambda: pickle.dumps(plain()), mutate),
}


def foreign_kinds() -> list[Kind]:
    """Return a kind for each format."""
    return [
        Kind(f"foreign: {name}", _writer(make), _read, change, has_checksum=name == "torch.save")
        for name, (make, change) in _FORMATS.items()
    ]


def _writer(make: Callable[[], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "checkpoint.bin"
        path.write_bytes(make())
        return path

    return write


def _read(path: Path) -> str:
    tensors: dict[str, Tensor] = dict(read_checkpoint_file(path).tensors)
    check_tensors(tensors, TENSORS, f"'{path}'")
    return tensors_sha256({name: tensors[name] for name in TENSORS})
