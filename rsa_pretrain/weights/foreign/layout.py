"""Define a layout: where a project's checkpoints keep each network, and what else they contain."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rsa_pretrain.data.sets import data_set
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.foreign.names import TORCHVISION, NameTable


@dataclass(frozen=True)
class Pixels:
    """Normalisation of the weights' RGB input, pixels in [0, 1]."""

    mean: RGB
    std: RGB


IMAGENET_PIXELS = Pixels(*data_set("imagenet").normalisation)
UNNORMALISED = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Layout:
    """One project's checkpoints. Paths join containers by ``/``: ``state_dict/backbone.conv1…``.

    Their names are without wrappers (``unwrap``). Training state and heads common to all layouts
    (``other_tensors``) are on no layout's own list.
    """

    name: str
    made_by: str
    """Projects or methods that write it."""
    source: str
    """Source of its names: repository, files and revision."""
    markers: tuple[str, ...]
    """Patterns; each must match the beginning of some path in the file."""
    networks: Mapping[str, tuple[str, ...]]
    """Network → prefixes its tensors may have; the first network is taken unless one is named."""
    drops: Mapping[str, str]
    """Pattern of the beginning of paths that are not taken → their kind."""
    names: NameTable = TORCHVISION
    pixels: Pixels | None = IMAGENET_PIXELS
    """For networks with the standard stem; None if the project has no single value."""
    pixels_from: str = "the layout's"
    """Source of the pixel statistics."""
    has_cifar_stem: bool = False
    """True if its 3x3 stem is this toolkit's: stride 1, padding 1, no max-pool."""
    cifar_pixels: Pixels | None = None
    """For networks with the 3x3 stem; None as for ``pixels``."""
    cifar_refusal: str | None = None
    """Why its 3x3 stem is known to differ from this toolkit's."""
    objection: Callable[[FileContent], str | None] = field(default=lambda content: None)
    """Why these weights compute something else although their names fit."""
    stated_pixels: Callable[[FileContent], Pixels | None] = field(default=lambda content: None)
    """Pixel statistics that the file itself states."""
    batch_counts: Callable[[FileContent], Mapping[str, int]] = field(default=lambda content: {})
    """``num_batches_tracked`` stored outside the tensors."""
    elsewhere: Callable[[str], str | None] | None = None
    """Kind of any path outside the one network to be taken, whatever its name."""

    @property
    def default_network(self) -> str:
        """The network taken unless one is named."""
        return next(iter(self.networks))

    def evidence(self, content: FileContent) -> list[str] | None:
        """Return one path per marker, or None if a marker matches no path."""
        found = []
        for marker in self.markers:
            path = first_match(marker, content)
            if path is None:
                return None
            found.append(path)
        return found


@dataclass(frozen=True)
class Unusable:
    """Known checkpoints that contain no network this toolkit can build."""

    name: str
    source: str
    markers: tuple[str, ...]
    why: str


def matching(pattern: str, path: str) -> bool:
    """Return whether the beginning of a path matches a pattern."""
    return re.match(pattern, path) is not None


def first_match(pattern: str, content: FileContent) -> str | None:
    """Return the first path, of tensors and then values, whose beginning matches the pattern."""
    for paths in (content.tensors, content.values):
        for path in paths:
            if matching(pattern, path):
                return path
    return None
