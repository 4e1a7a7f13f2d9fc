"""What a set of weights is: the description that its file carries."""

from importlib.metadata import version
from typing import Literal

from pydantic import Field

from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.config.files import Section


class Origin(Section):
    """Where imported weights come from: another project's file, and what was taken of it."""

    file: str
    """Name of the file; its SHA-256 is the metadata's ``parent``."""
    layout: str
    """How it was read."""
    recognised: str
    """How sure that layout is, and why."""
    network: str
    """Which of its networks was taken."""
    prefix: str
    """What stood before the tensors' names."""
    num_taken: int
    """Tensors taken."""
    dropped: dict[str, int]
    """What was not taken → how many tensors."""
    filled: list[str]
    """Batch counts the file did not hold, or not as finite numbers, set to 0."""
    converted: dict[str, int] = Field(default_factory=dict)
    """Element types in the file that are not the network's → tensors turned into it."""
    wrappers: tuple[str, ...] = ()
    """Names of wrapper classes that were taken off the tensors' names."""
    pixels: str
    """Whose mean and std these are."""
    non_finite: list[str]
    """Tensors with NaN or infinity, which the import was told to allow."""
    source: str
    """Where the layout's names were read."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Objects in the file that are neither tensors nor plain values → how many."""
    proof: tuple[str, ...] = ()
    """What was compared with the project's own library, and what was found; a sentence each."""

    def changes(self) -> list[str]:
        """Say in a line each what was made of the file's tensors before they were taken."""
        lines = [
            f"converted {count} {kind} tensors to the network's float32 and int64"
            for kind, count in self.converted.items()
        ]
        if self.filled:
            lines.append(
                f"filled    {len(self.filled)} batch counts that the file does not hold, with 0"
            )
        return lines


class BackboneMetadata(Section):
    """What a set of weights is, and what must go with it when it is used."""

    format_version: int
    """Version of this format; a reader refuses versions it does not know."""
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    """torchvision's name of the architecture."""
    stem: Literal["standard", "cifar"]
    """Stem, as in the config."""
    method: str
    """How the weights were made."""
    image_size: int | None
    """Side of the square training input, in pixels; null, as below, if an import cannot tell."""
    channel_order: Literal["RGB"]
    """Order of the input channels."""
    mean: RGB
    """Input mean, pixels in [0, 1]."""
    std: RGB
    """Input standard deviation, pixels in [0, 1]."""
    data_set: str | None
    """What it was trained on."""
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
    """Versions that wrote the file."""
    origin: Origin | None = None
    """Of weights imported from another project; null for this toolkit's own."""


def library_versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide a result."""
    packages = ("rsa-toolkit", "torch", "torchvision", "numpy", "pillow", "scikit-learn")
    return {package: version(package) for package in packages}
