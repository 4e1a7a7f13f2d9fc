"""Read the registry of published checkpoints, ``published.yaml``."""

import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from rsa_pretrain.components.settings import NETWORK_NAME, Stem
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.config.files import Section, parse_tree
from rsa_pretrain.plumbing.config.layers import read_yaml
from rsa_pretrain.plumbing.download import Checksum
from rsa_pretrain.plumbing.errors import UserError

FILE = Path(__file__).with_name("published.yaml")


class PublishedNumber(Section):
    """A result that a checkpoint's publisher states for it."""

    protocol: str
    """Evaluation, such as linear or knn."""
    data_set: str
    """Data set it was evaluated on."""
    metric: str
    """Metric, in percent."""
    value: float
    """Its value."""
    detail: str = ""
    """Recipe of the evaluation, as far as it is stated."""
    source: str
    """Text that the number was read in."""


class PublishedCheckpoint(Section):
    """One file of weights that anyone can download."""

    name: Annotated[str, Field(pattern="[a-z0-9_]+")]
    """Name in this toolkit: ``zoo:NAME``."""
    url: str | None = None
    """Address of the file; null if only a browser can get it."""
    by_hand: str | None = None
    """Page to download it from in a browser."""
    file_name: str | None = None
    """Name of the file on that page, if it has several, or in an archive there."""
    mirrors: tuple[str, ...] = ()
    """Other addresses of the same file, as its publisher states them."""
    checksum: Annotated[str, Field(pattern="(md5|sha256):[0-9a-f]{8,}")] | None = None
    """Hash that its publisher states, or its first digits; null if it states none."""
    arch: Annotated[str, Field(pattern=NETWORK_NAME)]
    """Architecture, as in ``BackboneMetadata``."""
    stem: Stem = "standard"
    """Stem, as in ``BackboneMetadata``."""
    layout: str | None = None
    """Layout of the file; null if its publisher's text does not tell: then it is recognised."""
    network: str | None = None
    """Network of that layout that its authors evaluated; null as above."""
    method: str
    """Pretraining method."""
    data_set: str
    """Data set it was trained on."""
    epochs: float | None = None
    """Epochs it was trained for; null if not stated."""
    mean: RGB
    """Input mean, pixels in [0, 1]."""
    std: RGB
    """Input standard deviation, pixels in [0, 1]."""
    published: tuple[PublishedNumber, ...] = ()
    """Results stated for it."""
    project: str
    """Publisher, as for the following keys."""
    page: str
    """Page where it is published."""
    read: str
    """Text, with its revision, that these facts were read in."""
    licence: str | None
    """SPDX name of the weights' licence; null if none is stated."""

    @model_validator(mode="after")
    def _has_one_place(self) -> "PublishedCheckpoint":
        if (self.url is None) == (self.by_hand is None):
            raise ValueError("give url or by_hand, and not both")
        return self

    @property
    def known_checksum(self) -> Checksum | None:
        """The publisher's checksum; None if it states none."""
        return None if self.checksum is None else Checksum.parse(self.checksum)


@cache
def published_checkpoints() -> dict[str, PublishedCheckpoint]:
    """Return every published checkpoint by name, in the order of the registry."""
    found: dict[str, PublishedCheckpoint] = {}
    for checkpoint in _read():
        if checkpoint.name in found:
            raise ValueError(f"{FILE.name} has two checkpoints named {checkpoint.name}")
        found[checkpoint.name] = checkpoint
    return found


def find_published(name: str) -> PublishedCheckpoint:
    """Return a published checkpoint.

    Raises:
        UserError: If the registry has none of that name; the nearest are named.
    """
    known = published_checkpoints()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=3)
        hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
        raise UserError(
            f"no published checkpoint is named '{name}'{hint}; rsa-pretrain zoo lists all"
        )
    return known[name]


def _read() -> Iterator[PublishedCheckpoint]:
    for publisher in read_yaml(FILE)["publishers"]:
        shared = {key: value for key, value in publisher.items() if key != "checkpoints"}
        for checkpoint in publisher["checkpoints"]:
            yield parse_tree(PublishedCheckpoint, shared | checkpoint, FILE.name)
