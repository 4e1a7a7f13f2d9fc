"""Every path of a file assigned: to the network, to what is dropped, or to neither."""

from collections.abc import Mapping
from dataclasses import dataclass

from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.foreign.beside import heads, training_state
from rsa_pretrain.weights.foreign.layout import Layout, matching
from rsa_pretrain.weights.foreign.unwrap import Unwrapped, unwrapped

FIRST_NAME = "conv1.weight"


@dataclass(frozen=True)
class Assignment:
    """What the paths of a file are under one layout."""

    taken: Mapping[str, str]
    """torchvision's name → path."""
    dropped: Mapping[str, list[str]]
    """What they are → paths that are not taken."""
    strange: list[str]
    """Paths that nothing accounts for."""


def networks_in(content: FileContent, layout: Layout) -> dict[str, str]:
    """Return which of a layout's networks a file holds, and under which prefix, unwrapped."""
    bare = unwrapped(content)
    found = {network: find_prefix(bare, layout, network) for network in layout.networks}
    return {network: prefix for network, prefix in found.items() if prefix is not None}


def first_names(layout: Layout, network: str) -> list[str]:
    """Return what the first tensor of a network may be called."""
    first = layout.names.from_torchvision(FIRST_NAME)
    return [f"{prefix}{first}" for prefix in layout.networks[network]]


def find_prefix(content: Unwrapped, layout: Layout, network: str) -> str | None:
    """Return under which of its prefixes a network lies; None if under none."""
    for prefix, first in zip(layout.networks[network], first_names(layout, network), strict=True):
        if first in content.tensors:
            return prefix
    return None


def shown_prefix(content: Unwrapped, layout: Layout, prefix: str) -> str:
    """Return what stands before a network's names in the file, wrappers included."""
    first = layout.names.from_torchvision(FIRST_NAME)
    there = content.in_file.get(prefix + first, "")
    return there.removesuffix(first) if there.endswith(first) else prefix


def assign(content: Unwrapped, layout: Layout, prefix: str) -> Assignment:
    """Assign every path; heads that only their place tells are assigned to neither."""
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
    """Drop the heads under the network's prefix, where a layout has no list of its own.

    Args:
        paths: What ``assign`` made of the file.
        content: The file.
        layout: How it is read.
        prefix: Where the network lies.
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
    """Return what a path is that is not taken, whatever lies under the network's prefix."""
    for drop, why in layout.drops.items():
        if matching(drop, path):
            return why
    for other, network in others.items():
        if _network_name(layout, other, path) is not None:
            return f"{network} network"
    state = training_state(path, prefix)
    return state if state is not None or layout.elsewhere is None else layout.elsewhere(path)


def _network_name(layout: Layout, prefix: str, path: str) -> str | None:
    """Return torchvision's name of a tensor of the network under a prefix."""
    if not path.startswith(prefix):
        return None
    return layout.names.to_torchvision(path.removeprefix(prefix))
