"""Find networks of any known naming, anywhere in a file.

A network is seen where its first convolution and the first one of each stage share a prefix;
``make_plan`` then decides whether it is complete, with nothing left over.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rsa_pretrain.weights.foreign.assign import FIRST_NAME, networks_in, shown_prefix
from rsa_pretrain.weights.foreign.layout import Layout
from rsa_pretrain.weights.foreign.layouts import NAMINGS
from rsa_pretrain.weights.foreign.names import NameTable
from rsa_pretrain.weights.foreign.other_tensors import is_setting
from rsa_pretrain.weights.foreign.unwrap import Unwrapped, without_wrappers

_ANCHORS = (FIRST_NAME, *(f"layer{stage}.0.conv1.weight" for stage in range(1, 5)))
_SEEN_FROM = 3  # of the anchors: a network that lacks its stem or a stage is a damaged network
_NEAR_FROM = 2
_LISTED_GROUPS = 20


@dataclass(frozen=True)
class NetworkPlace:
    """The place of a network of some naming."""

    shown: str
    """Prefix of its names in the file."""
    layout: Layout
    """Reads this one network, and knows all other tensors by their place."""


def networks_seen(content: Unwrapped, documented: Iterable[Layout]) -> list[NetworkPlace]:
    """Return every place where a network of a known naming is seen.

    A network among the settings of a run, an argument of its module, is only seen if it is alone.

    Args:
        content: The file.
        documented: Layouts whose markers the file has: they read their own networks, and their
            pixel statistics and objections apply.
    """
    documented = list(documented)
    seen = [
        (prefix, naming)
        for naming in NAMINGS
        for prefix, anchors in _prefixes(content, naming.names).items()
        if len(anchors) >= _SEEN_FROM
    ]
    trained = [(prefix, naming) for prefix, naming in seen if not is_setting(prefix)]
    return [
        _place(content, _reader(content, prefix, naming, documented), prefix)
        for prefix, naming in trained or seen
    ]


def network_at(
    content: Unwrapped, prefix: str, layouts: Iterable[Layout], documented: Iterable[Layout]
) -> NetworkPlace | None:
    """Return the network under a prefix that a user states, with or without a final dot or slash.

    Args:
        content: The file.
        prefix: As in the file, or without wrappers.
        layouts: Possible namings of the network.
        documented: As for ``networks_seen``.
    """
    bare = [without_wrappers(f"{prefix}{end}x").removesuffix("x") for end in ("", ".", "/")]
    documented = list(documented)
    for layout in layouts:
        first = layout.names.from_torchvision(FIRST_NAME)
        for tried in bare:
            if tried + first in content.tensors:
                reader = _reader(content, tried, layout, documented)
                return _place(content, reader, tried)
    return None


def nearest(content: Unwrapped) -> str | None:
    """Say which naming is nearest to a file without a visible network, and what is missing."""
    best: tuple[int, str] | None = None
    for naming in NAMINGS:
        for prefix, anchors in _prefixes(content, naming.names).items():
            wanted = [naming.names.from_torchvision(anchor) for anchor in _ANCHORS]
            lacking = [f"'{prefix}{name}'" for name in wanted if name not in anchors]
            if len(anchors) >= (_NEAR_FROM if best is None else best[0] + 1):
                says = f"nearest is {naming.name}'s naming, and {', '.join(lacking)} are missing"
                best = len(anchors), says
    return None if best is None else best[1]


def _prefixes(content: Unwrapped, names: NameTable) -> dict[str, set[str]]:
    """Return the prefixes of a network's anchors, each with the anchors found under it."""
    wanted = [names.from_torchvision(anchor) for anchor in _ANCHORS]
    found: dict[str, set[str]] = {}
    for path in content.tensors:
        for name in wanted:
            if path.endswith(name) and path.removesuffix(name)[-1:] in ("", ".", "/"):
                found.setdefault(path.removesuffix(name), set()).add(name)
    return found


def _reader(content: Unwrapped, prefix: str, naming: Layout, documented: list[Layout]) -> Layout:
    """Return the documented layout that has a network at a prefix, or else the naming's own."""
    for layout in documented:
        if layout.names is naming.names and prefix in networks_in(content, layout).values():
            return layout
    return replace(naming, pixels_from="ImageNet's: the file does not identify its project")


def _place(content: Unwrapped, layout: Layout, prefix: str) -> NetworkPlace:
    """Narrow a layout to one network; everything else is dropped by its place."""
    there = {network: at for network, at in networks_in(content, layout).items() if at == prefix}
    network = next(iter(there), layout.default_network)
    shown = shown_prefix(content, layout, prefix)
    groups = {
        path: _group(content.in_file[path], shown) or _group(path, prefix)
        for path in content.tensors
        if not path.startswith(prefix)
    }
    few = len(set(groups.values())) <= _LISTED_GROUPS

    def elsewhere(path: str) -> str | None:
        if path not in groups:
            return None
        return f"'{groups[path]}'" if few else "outside the prefix"

    return NetworkPlace(shown, replace(layout, networks={network: (prefix,)}, elsewhere=elsewhere))


def _group(path: str, prefix: str) -> str | None:
    """Return the shortest beginning of a path that departs from a prefix; None under it."""
    if path.startswith(prefix):
        return None
    return next(start for start in _beginnings(path) if not prefix.startswith(start)).rstrip("./")


def _beginnings(path: str) -> Iterator[str]:
    """Yield a path's beginnings up to each dot or slash, and the path."""
    for place, letter in enumerate(path):
        if letter in "./":
            yield path[: place + 1]
    yield path
