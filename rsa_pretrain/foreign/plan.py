"""What one layout makes of a file: every tensor taken once, dropped by name, or in the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import get_args

import torch
from torch import Tensor

from rsa_pretrain.backbone import build_backbone
from rsa_pretrain.checkpoint import BackboneMetadata, check_tensors
from rsa_pretrain.config import BackboneConfig
from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.file_content import FileContent
from rsa_pretrain.foreign.layout import Layout, Pixels, matching

_CIFAR_KERNEL = (3, 3)
_UNKNOWN_STEM = (
    "its first convolution is 3x3, and names tell neither its stride and padding nor whether a "
    "max-pool follows; if they are 1, 1 and none, say so with rsa-pretrain import --cifar-stem"
)
_ARCHS = get_args(BackboneMetadata.model_fields["arch"].annotation)


@dataclass(frozen=True)
class Plan:
    """A network of a file under one layout, complete and ready to be taken."""

    layout: Layout
    network: str
    prefix: str
    config: BackboneConfig
    tensors: Mapping[str, Tensor]
    """By torchvision's names."""
    dropped: Mapping[str, tuple[str, ...]]
    """What they are → paths that are not taken."""
    filled: tuple[str, ...]
    """Batch counts the file does not hold."""
    pixels: Pixels | None
    """None if neither layout nor file tells."""


def make_plan(
    content: FileContent,
    layout: Layout,
    network: str | None = None,
    *,
    finite: bool = True,
    cifar_stem: bool = False,
) -> Plan:
    """Assign every tensor of a file.

    Args:
        content: The file.
        layout: How to read it.
        network: Which of the layout's networks; None takes the default.
        finite: Refuse NaN and infinity.
        cifar_stem: Whether a 3x3 stem that the names do not tell of is stated to be this toolkit's.

    Raises:
        UserError: If the file has no such network, lacks a tensor, has one in another shape or
            one that is neither the network's nor on the drop list; lists them.
    """
    network = network or layout.default_network
    if network not in layout.networks:
        known = ", ".join(layout.networks)
        raise UserError(f"layout {layout.name} has no network '{network}'; choose of: {known}")
    what = f"'{content.path}' as {layout.name} ({network})"
    prefix = _prefix(content, layout, network)
    if prefix is None:
        raise UserError(
            f"cannot load {what}: no tensor is called {' or '.join(_first_names(layout, network))}"
        )
    taken, dropped, strange = _assign(content, layout, prefix)
    filled = _fill_batch_counts(content, layout, taken)
    config = _config_of(taken, what)
    check_tensors(taken | strange, _expected(config), what, finite=finite)
    objection = layout.objection(content)
    if config.stem == "cifar":
        told = layout.has_cifar_stem or cifar_stem
        objection = layout.cifar_refusal or objection or (None if told else _UNKNOWN_STEM)
    if objection is not None:
        raise UserError(f"cannot load {what}: {objection}")
    known_pixels = layout.pixels if config.stem == "standard" else layout.cifar_pixels
    pixels = layout.stated_pixels(content) or known_pixels
    return Plan(layout, network, prefix, config, taken, dropped, filled, pixels)


def networks_in(content: FileContent, layout: Layout) -> dict[str, str]:
    """Return which of a layout's networks a file holds, and under which prefix."""
    found = {network: _prefix(content, layout, network) for network in layout.networks}
    return {network: prefix for network, prefix in found.items() if prefix is not None}


def _first_names(layout: Layout, network: str) -> list[str]:
    first = layout.names.from_torchvision("conv1.weight")
    return [f"{prefix}{first}" for prefix in layout.networks[network]]


def _prefix(content: FileContent, layout: Layout, network: str) -> str | None:
    for prefix, first in zip(layout.networks[network], _first_names(layout, network), strict=True):
        if first in content.tensors:
            return prefix
    return None


def _assign(
    content: FileContent, layout: Layout, prefix: str
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]], dict[str, Tensor]]:
    """Return the network's tensors, what is dropped and why, and what nothing accounts for."""
    others = {prefix: name for name, prefix in networks_in(content, layout).items()}
    del others[prefix]
    taken: dict[str, Tensor] = {}
    dropped: dict[str, tuple[str, ...]] = {}
    strange: dict[str, Tensor] = {}
    for path, tensor in content.tensors.items():
        why = _why_dropped(layout, others, path)
        name = _network_name(layout, prefix, path)
        if why is not None:
            dropped[why] = (*dropped.get(why, ()), path)
        elif name is not None:
            taken[name] = tensor
        else:
            strange[path] = tensor
    return taken, dropped, strange


def _why_dropped(layout: Layout, others: Mapping[str, str], path: str) -> str | None:
    """Return what a path is that is not taken: on the drop list, or of another network."""
    for drop, why in layout.drops.items():
        if matching(drop, path):
            return why
    for prefix, network in others.items():
        if _network_name(layout, prefix, path) is not None:
            return f"{network} network"
    return None


def _network_name(layout: Layout, prefix: str, path: str) -> str | None:
    """Return torchvision's name of a tensor of the network under a prefix."""
    if not path.startswith(prefix):
        return None
    return layout.names.to_torchvision(path.removeprefix(prefix))


def _fill_batch_counts(
    content: FileContent, layout: Layout, taken: dict[str, Tensor]
) -> tuple[str, ...]:
    """Add the counts of batches, which evaluation never reads, where a layout keeps none."""
    if layout.has_batch_counts:
        return ()
    counts = layout.batch_counts(content)
    filled = [
        name.replace("running_mean", "num_batches_tracked")
        for name in taken
        if name.endswith("running_mean")
    ]
    absent = tuple(name for name in filled if name not in taken)
    taken.update({name: torch.tensor(counts.get(name, 0)) for name in absent})
    return tuple(name for name in absent if name not in counts)


def _config_of(taken: Mapping[str, Tensor], what: str) -> BackboneConfig:
    """Tell architecture and stem by the blocks there are and the first kernel."""
    shape = _shape_of_network(taken)
    for arch in _ARCHS:
        config = BackboneConfig(arch=arch, stem="standard")
        if _shape_of_network(_expected(config)) == shape:
            small = taken["conv1.weight"].shape[2:] == _CIFAR_KERNEL
            return BackboneConfig(arch=arch, stem="cifar" if small else "standard")
    blocks, kind = list(shape[:4]), "bottlenecks" if shape[4] else "basic blocks"
    known = ", ".join(_ARCHS)
    raise UserError(f"cannot load {what}: its stages have {blocks} {kind}; expected one of {known}")


def _shape_of_network(names: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the number of blocks per stage, and whether they are bottlenecks."""
    blocks = {tuple(name.split(".")[:2]) for name in names if name.startswith("layer")}
    counts = [sum(stage == f"layer{number}" for stage, _ in blocks) for number in range(1, 5)]
    return (*counts, any(name.endswith("conv3.weight") for name in names))


@cache
def _expected(config: BackboneConfig) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return build_backbone(config).state_dict()
