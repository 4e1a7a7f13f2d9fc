"""Checkpoints of every layout, in memory and on disk.

Networks are ResNet-18s that differ in every value, so that a wrong choice shows.
"""

import argparse
import importlib.util
import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_backbone, save_tensors
from rsa_pretrain.weights.files.file_content import FileContent, read_checkpoint_file
from rsa_pretrain.weights.files.tree import walk
from rsa_pretrain.weights.foreign.load import ImportOptions, write_import
from rsa_pretrain.weights.foreign.names import NameTable

State = dict[str, Tensor]

SMALL = {
    "state_dict": OrderedDict(
        {
            "conv.weight": torch.arange(24.0).reshape(2, 3, 4),
            "norm.bias": torch.tensor([0.5, -1.5]),
            "norm.num_batches_tracked": torch.tensor(7),
        }
    ),
    "epoch": 3,
    "args": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=[1, 2])),
}


@dataclass
class Example:
    """A checkpoint as its project writes it."""

    tree: dict[str, Any]
    """The contents of the file."""
    state: dict[str, Any]
    """The container of the default network; a part of ``tree``."""
    prefix: str
    """Before the default network's names."""
    names: NameTable
    kind: str
    networks: dict[str, State]
    """Every network by torchvision's names, the default one first."""

    @property
    def wanted(self) -> State:
        """The default network."""
        return next(iter(self.networks.values()))

    def write(self, path: Path) -> None:
        """Write the file as the project does."""
        if self.kind == "safetensors":
            save_file(self.tree, path, {"format": "pt"})
        elif self.kind == "pickle":
            path.write_bytes(pickle.dumps(_as_arrays(self.tree)))
        else:
            torch.save(self.tree, path)

    def content(self) -> FileContent:
        """Return what reading the file gives."""
        return content_of(self.tree)


@pytest.fixture(scope="session")
def small_tensors() -> State:
    """Return the tensors of ``small_files``, by path."""
    return {f"state_dict/{name}": tensor for name, tensor in SMALL["state_dict"].items()}


@pytest.fixture(scope="session")
def torch_bytes() -> Callable[..., bytes]:
    """Return what writes as torch.save does, in either of its formats."""

    def write(content: Any, *, legacy: bool = False) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
        return buffer.getvalue()

    return write


@pytest.fixture(scope="session")
def small_files(small_tensors: State, torch_bytes: Callable[..., bytes]) -> dict[str, bytes]:
    """Return a small intact file of every kind."""
    arrays = _as_arrays({"state_dict": SMALL["state_dict"], "__author__": "x"})
    return {
        "torch.save": torch_bytes(SMALL),
        "torch.save before 1.6": torch_bytes(SMALL, legacy=True),
        "safetensors": save(small_tensors, {"format": "pt"}),
        "pickle": pickle.dumps(arrays, protocol=4),
    }


@pytest.fixture
def read_bytes(tmp_path: Path) -> Callable[[bytes], FileContent]:
    """Return what reads bytes as a checkpoint file."""

    def read(data: bytes) -> FileContent:
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        return read_checkpoint_file(path)

    return read


@pytest.fixture(scope="session")
def specs() -> dict[str, Any]:
    """Return what each layout's checkpoint holds."""
    return dict(_examples_module().SPECS)


@pytest.fixture(scope="session")
def network() -> Callable[..., State]:
    """Return tensors of a ResNet; another seed gives other values everywhere."""
    made: dict[tuple[object, ...], State] = {}

    def make(seed: int = 0, arch: str = "resnet18", stem: str = "standard") -> State:
        if (seed, arch, stem) not in made:
            generator = torch.Generator().manual_seed(seed)
            state = build_backbone(BackboneConfig(arch=arch, stem=stem)).state_dict()
            for number, (name, tensor) in enumerate(state.items()):
                if name.endswith("num_batches_tracked"):
                    tensor.fill_(100 * seed + number)
                elif name.endswith("running_var"):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                else:
                    tensor.normal_(0, 0.05, generator=generator)
            made[seed, arch, stem] = state
        return dict(made[seed, arch, stem])

    return make


@pytest.fixture(scope="session")
def example(specs: dict[str, Any], network: Callable[..., State]) -> Callable[..., Example]:
    """Return a function that builds a new checkpoint of a layout at each call."""

    def build(layout: str, stem: str = "standard") -> Example:
        spec = specs[layout]
        tree: dict[str, Any] = dict(spec.beside)
        networks = {}
        for seed, (name, (container, prefix)) in enumerate(spec.networks.items(), start=1):
            networks[name] = network(seed, stem=stem)
            _inside(tree, container).update(_named(networks[name], prefix, spec.names))
        container, prefix = next(iter(spec.networks.values()))
        state = _inside(tree, container)
        for second in spec.again:
            state.update(_named(next(iter(networks.values())), second, spec.names))
        for folder, heads in spec.heads.items():
            _inside(tree, folder).update({head: torch.ones(2, 2) for head in heads})
        return Example(tree, state, prefix, spec.names, spec.kind, networks)

    return build


@pytest.fixture(scope="session")
def as_content() -> Callable[[Any], FileContent]:
    """Return what makes of a tree the content of a file that holds it."""
    return content_of


@pytest.fixture(scope="session")
def own_backbone(
    network: Callable[..., State], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LoadedBackbone]:
    """Return a backbone in this toolkit's format, imported and saved."""
    made: dict[tuple[str, str], LoadedBackbone] = {}

    def make(arch: str = "resnet18", stem: str = "standard") -> LoadedBackbone:
        if (arch, stem) not in made:
            source = tmp_path_factory.mktemp("own") / "source.pth"
            out = source.with_name("own.safetensors")
            torch.save(network(3, arch), source)
            metadata = write_import(source, out, ImportOptions(data_set="noise"))
            if stem != "standard":
                save_tensors(
                    out, network(3, arch, stem), metadata.model_copy(update={"stem": stem})
                )
            made[arch, stem] = load_backbone(out)
        return made[arch, stem]

    return make


def content_of(tree: Any) -> FileContent:
    """Flatten a tree as reading a file does."""
    path = Path("checkpoint.pth")
    parts = dict(walk(path, tree))
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    values = {name: part for name, part in parts.items() if not isinstance(part, Tensor)}
    return FileContent(path, "torch.save", 1, "0" * 64, tensors, values)


def _inside(tree: dict[str, Any], container: str) -> dict[str, Any]:
    for part in filter(None, container.split("/")):
        tree = tree.setdefault(part, {})
    return tree


def _named(state: State, prefix: str, names: NameTable) -> State:
    return {prefix + names.from_torchvision(name): tensor for name, tensor in state.items()}


def _as_arrays(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _as_arrays(part) for key, part in tree.items()}
    return tree.numpy() if isinstance(tree, Tensor) else tree


def _examples_module() -> ModuleType:
    path = Path(__file__).with_name("examples.py")
    found = importlib.util.spec_from_file_location("foreign_examples", path)
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module
