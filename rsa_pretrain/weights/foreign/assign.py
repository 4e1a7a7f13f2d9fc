"""Assign every path in a file to the network, to the dropped tensors, or to neither."""

from collections.abc import Mapping
from dataclasses import dataclass

from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.foreign.layout import Layout, matching
from rsa_pretrain.weights.foreign.other_tensors import heads, training_state
from rsa_pretrain.weights.foreign.unwrap import Unwrapped, unwrapped

FIRST_NAME = "conv1.weight"


@dataclass(frozen=True)
class Assignment:
    """The role of every path in a file, under one layout."""

    taken: Mapping[str, str]
    """torchvision's name → path."""
    dropped: Mapping[str, list[str]]
    """Kind → paths that are not taken."""
    strange: list[str]
    """Paths that the layout does not account for."""


def networks_in(content: FileContent, layout: Layout) -> dict[str, str]:
    """Return the layout's networks in a file, each with its prefix, unwrapped."""
    bare = unwrapped(content)
    found = {network: find_prefix(bare, layout, network) for network in layout.networks}
    return {network: prefix for network, prefix in found.items() if prefix is not None}


def first_names(layout: Layout, network: str) -> list[str]:
    """Return the possible names of a network's first tensor."""
    first = layout.names.from_torchvision(FIRST_NAME)
    return [f"{prefix}{first}" for prefix in layout.networks[network]]


def find_prefix(content: Unwrapped, layout: Layout, network: str) -> str | None:
    """Return the prefix under which a network is found; None if under none of its prefixes."""
    for prefix, first in zip(layout.networks[network], first_names(layout, network), strict=True):
        if first in content.tensors:
            return prefix
    return None


def shown_prefix(content: Unwrapped, layout: Layout, prefix: str) -> str:
    """Return the full prefix of a network's names in the file, wrappers included."""
    first = layout.names.from_torchvision(FIRST_NAME)
    there = content.in_file.get(prefix + first, "")
    return there.removesuffix(first) if there.endswith(first) else prefix


def assign(content: Unwrapped, layout: Layout, prefix: str) -> Assignment:
    """Assign every path; heads recognisable only by their place are assigned to neither."""
    others = {prefix: name for name, prefix in networks_in(content, layout).items()}
    del others[prefix]
    taken: dict[str, str] = {}
    dropped: dict[str, list[str]] = {}
    strange: list[str] = []
    for path in content.tensors:
        why = _why_dropped(layout, others, path, prefix)
        name = _network_name(layout, prefix, path)
        if why is not None:
            dropped.setdefault(why, []).append(path)
        elif name is not None:
            taken[name] = path
        else:
            strange.append(path)
    return Assignment(taken, dropped, strange)


def without_heads(
    paths: Assignment, content: Unwrapped, layout: Layout, prefix: str, width: int
) -> Assignment:
    """Drop the heads under the network's prefix, if a layout does not list them itself.

    Args:
        paths: As returned by ``assign``.
        content: The file.
        layout: How to read it.
        prefix: Prefix of the network.
        width: Length of the network's features.
    """
    if layout.elsewhere is None:
        return paths
    beside = {path: content.tensors[path] for path in paths.strange}
    found = heads(beside, prefix, layout.names, width)
    if not found:
        return paths
    for path in found:
        del beside[path]
    return Assignment(paths.taken, {**paths.dropped, "head": found}, list(beside))


def _why_dropped(layout: Layout, others: Mapping[str, str], path: str, prefix: str) -> str | None:
    """Return the kind of a path that is not taken, even under the network's prefix."""
    for drop, why in layout.drops.items():
        if matching(drop, path):
            return why
    for other, network in others.items():
        if _network_name(layout, other, path) is not None:
            return f"{network} network"
    state = training_state(path, prefix)
    return state if state is not None or layout.elsewhere is None else layout.elsewhere(path)


def _network_name(layout: Layout, prefix: str, path: str) -> str | None:
    """Return torchvision's name for a tensor of the network under a prefix."""
    if not path.startswith(prefix):
        return None
    return layout.names.to_torchvision(path.removeprefix(prefix))
