"""Plan a file's import under one layout: each tensor taken once, dropped by name, or refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import ARCHS, USUAL_WIDTH, WIDTHS, BackboneConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.foreign.assign import (
    assign,
    find_prefix,
    first_names,
    shown_prefix,
    without_heads,
)
from rsa_pretrain.weights.foreign.element_types import to_types_of
from rsa_pretrain.weights.foreign.layout import Layout, Pixels
from rsa_pretrain.weights.foreign.unwrap import Unwrapped, unwrapped, wrappers_in
from rsa_pretrain.weights.tensor_check import all_finite, check_tensors

_CIFAR_KERNEL = (3, 3)
_UNKNOWN_STEM = (
    "its first convolution is 3x3, and names show neither its stride and padding nor whether a "
    "max-pool follows; if they are 1, 1 and none, say so with rsa-pretrain import --cifar-stem"
)
_LAST_NORM = "layer4.0.downsample.1.weight"


@dataclass(frozen=True)
class Plan:
    """A network in a file under one layout, complete and ready to import."""

    layout: Layout
    network: str
    prefix: str
    """As in the file, wrappers included."""
    config: BackboneConfig
    tensors: Mapping[str, Tensor]
    """Tensors by torchvision's names."""
    dropped: Mapping[str, tuple[str, ...]]
    """Kind → paths that are not taken."""
    filled: tuple[str, ...]
    """Batch counts the file lacks, or does not store as finite numbers."""
    converted: Mapping[str, int]
    """Element types that are not the network's → number of tensors converted."""
    wrappers: tuple[str, ...]
    """Wrappers removed from the tensors' names."""
    pixels: Pixels | None
    """None if neither layout nor file states them."""


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
        cifar_stem: Whether the user states that a 3x3 stem is this toolkit's.

    Raises:
        UserError: If the file has no such network, lacks a tensor, has one in another shape or
            one that is neither the network's nor on the drop list; lists them.
    """
    content = unwrapped(content)
    network = network or layout.default_network
    prefix, shown, what = _locate(content, layout, network)
    paths = assign(content, layout, prefix)
    found = {name: content.tensors[path] for name, path in paths.taken.items()}
    config = _config_of(found, what)
    expected = _expected(config)
    paths = without_heads(paths, content, layout, prefix, expected[_LAST_NORM].numel())
    filled = _fill_batch_counts(content, layout, found)
    tensors, converted = to_types_of(expected, found, what)
    strange = {content.in_file[path]: content.tensors[path] for path in paths.strange}
    check_tensors(tensors | strange, expected, what, finite=finite)
    _check_objections(content, layout, config, what, cifar_stem=cifar_stem)
    known_pixels = layout.pixels if config.stem == "standard" else layout.cifar_pixels
    dropped = {
        why: tuple(content.in_file[path] for path in paths.dropped[why]) for why in paths.dropped
    }
    return Plan(
        layout,
        network,
        shown,
        config,
        tensors,
        dropped,
        filled,
        converted,
        wrappers_in(content.in_file[path] for path in paths.taken.values()),
        layout.stated_pixels(content) or known_pixels,
    )


def _locate(content: Unwrapped, layout: Layout, network: str) -> tuple[str, str, str]:
    """Return a network's prefix, without wrappers and as in the file, and its name for errors."""
    if network not in layout.networks:
        known = ", ".join(layout.networks)
        raise UserError(f"layout {layout.name} has no network '{network}'; choose one of: {known}")
    what = f"'{content.path}' as {layout.name} ({network})"
    prefix = find_prefix(content, layout, network)
    if prefix is None:
        raise UserError(
            f"cannot load {what}: no tensor is called "
            f"{' or '.join(first_names(layout, network))} (wrappers aside)"
        )
    shown = shown_prefix(content, layout, prefix)
    if layout.elsewhere is not None and shown:
        what += f" under '{shown}'"
    return prefix, shown, what


def _check_objections(
    content: FileContent, layout: Layout, config: BackboneConfig, what: str, *, cifar_stem: bool
) -> None:
    """Refuse weights that would compute something else although names and shapes fit."""
    objection = layout.objection(content)
    if config.stem == "cifar":
        told = layout.has_cifar_stem or cifar_stem
        objection = layout.cifar_refusal or objection or (None if told else _UNKNOWN_STEM)
    if objection is not None:
        raise UserError(f"cannot load {what}: {objection}")


def _fill_batch_counts(
    content: FileContent, layout: Layout, found: dict[str, Tensor]
) -> tuple[str, ...]:
    """Add the batch counts, which evaluation never reads, if the file has none."""
    elsewhere = layout.batch_counts(content)
    counts = [
        name.replace("running_mean", "num_batches_tracked")
        for name in found
        if name.endswith("running_mean")
    ]
    absent = [name for name in counts if name not in found or not all_finite(found[name])]
    found.update({name: torch.tensor(elsewhere.get(name, 0)) for name in absent})
    return tuple(name for name in absent if name not in elsewhere)


def _config_of(taken: Mapping[str, Tensor], what: str) -> BackboneConfig:
    """Infer architecture, width and stem from the blocks and the first kernels."""
    shape = _shape_of_network(taken)
    for arch in ARCHS:
        if _shape_of_network(_expected(BackboneConfig(arch=arch, stem="standard"))) == shape:
            small = taken["conv1.weight"].shape[2:] == _CIFAR_KERNEL
            width = _width_of(taken, what)
            return BackboneConfig(arch=arch, width=width, stem="cifar" if small else "standard")
    blocks, kind = list(shape[:4]), "bottlenecks" if shape[4] else "basic blocks"
    known = ", ".join(ARCHS)
    raise UserError(f"cannot load {what}: its stages have {blocks} {kind}; expected one of {known}")


def _width_of(taken: Mapping[str, Tensor], what: str) -> int:
    """Return the channels of the stem if the first block has as many, or else the usual number."""
    stem, block = (
        taken[name].shape[:1] if name in taken else None
        for name in ("conv1.weight", "layer1.0.conv1.weight")
    )
    width = stem[0] if stem and stem == block else USUAL_WIDTH
    if width not in WIDTHS:
        raise UserError(
            f"cannot load {what}: its stem has {width} channels; networks are built with "
            f"{WIDTHS.start} to {WIDTHS[-1]}, in multiples of {WIDTHS.step}"
        )
    return width


def _shape_of_network(names: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the number of blocks per stage, and whether they are bottlenecks."""
    blocks = {tuple(name.split(".")[:2]) for name in names if name.startswith("layer")}
    counts = [sum(stage == f"layer{number}" for stage, _ in blocks) for number in range(1, 5)]
    return (*counts, any(name.endswith("conv3.weight") for name in names))


@cache
def _expected(config: BackboneConfig) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return build_backbone(config).state_dict()
