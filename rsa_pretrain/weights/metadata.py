"""Describe a set of weights: the metadata stored in its file."""

from typing import Annotated, Literal

from pydantic import Field

from rsa_pretrain.components.settings import NETWORK_NAME, BackboneConfig, Stem
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.plumbing.versions import VERSION, installed_versions

METADATA_KEY = "rsa_toolkit"
"""Key of the metadata in each file of weights that this toolkit writes."""


class PublishedPlace(Section):
    """Place that imported weights were published at."""

    name: str
    """Name in the registry, as in ``zoo:NAME``."""
    url: str
    """Address that the file was downloaded from, or page it was downloaded from by hand."""
    checksum: str | None
    """Hash stated by its publisher, or its first digits, which the file has; null if it states
    none."""


class Origin(Section):
    """Provenance of imported weights: another project's file, and what was taken from it."""

    file: str
    """Name of the file; its SHA-256 is the metadata's ``parent``."""
    layout: str
    """Name of the layout it was read by."""
    recognised: str
    """Certainty of that layout, and its reason."""
    network: str
    """Name of the network taken."""
    prefix: str
    """Prefix of the tensors' names in the file."""
    num_taken: int
    """Number of tensors taken."""
    dropped: dict[str, int]
    """Kind of tensors not taken → how many."""
    filled: list[str]
    """Batch counts that were missing or not finite in the file, set to 0."""
    converted: dict[str, int] = Field(default_factory=dict)
    """Element types in the file that are not the network's → number of tensors converted."""
    wrappers: tuple[str, ...] = ()
    """Names of wrapper classes that were removed from the tensors' names."""
    pixels: str
    """Source of mean and std."""
    non_finite: list[str]
    """Tensors with NaN or infinity, which the import was told to allow."""
    source: str
    """Source of the layout's names."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Objects in the file that are neither tensors nor plain values → how many."""
    published: PublishedPlace | None = None
    """Where the file was published; null if it was not taken from the registry."""
    proof: tuple[str, ...] = ()
    """Findings of the comparison with the project's own library; a sentence each."""

    def changes(self) -> list[str]:
        """Describe in a line each how the file's tensors were changed on import."""
        lines = [
            f"converted {count} {kind} tensors to the network's float32 and int64"
            for kind, count in self.converted.items()
        ]
        if self.filled:
            lines.append(f"filled    {len(self.filled)} batch counts that the file lacks, with 0")
        return lines


class BackboneMetadata(Section):
    """Description of a set of weights, with all that is needed to use it."""

    format_version: int
    """Version of this format; a reader refuses versions it does not know."""
    arch: Annotated[str, Field(pattern=NETWORK_NAME)]
    """Name of the architecture: torchvision's, or that of a narrower or wider one, resnet18_w16."""
    stem: Stem
    """Stem, as in the config."""
    method: str
    """Pretraining method of the weights."""
    image_size: int | None
    """Side of the square training input, in pixels; null, as below, if unknown at import."""
    channel_order: Literal["RGB"]
    """Order of the input channels."""
    mean: RGB
    """Input mean, pixels in [0, 1]."""
    std: RGB
    """Input standard deviation, pixels in [0, 1]."""
    data_set: str | None
    """Data set it was trained on."""
    epochs: float | None
    """Epochs trained so far."""
    step: int | None
    """Optimizer steps taken so far."""
    seed: int | None
    """Seed of the run."""
    config_hash: str | None
    """SHA-256 of the run's resolved settings."""
    parent: str | None
    """SHA-256 of the file the weights were made from; null if trained from scratch."""
    library_versions: dict[str, str]
    """Versions of the libraries that wrote the file."""
    origin: Origin | None = None
    """Origin of weights imported from another project; null for this toolkit's own."""

    @property
    def network(self) -> BackboneConfig:
        """The network whose weights they are."""
        return BackboneConfig.named(self.arch, self.stem)


def library_versions() -> dict[str, str]:
    """Return the versions of this toolkit and of the installed packages that affect a result."""
    packages = ("torch", "torchvision", "numpy", "pillow", "scikit-learn")
    return {"rsa-toolkit": VERSION} | installed_versions(*packages)
