"""Import another project's weights, in memory or into a file, with their provenance."""

from dataclasses import dataclass
from pathlib import Path

import torch

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import (
    FORMAT_VERSION,
    LoadedBackbone,
    find_weights,
    save_tensors,
)
from rsa_pretrain.weights.files.file_content import FileContent, read_checkpoint_file
from rsa_pretrain.weights.files.regular_file import check_regular_file
from rsa_pretrain.weights.files.safetensors_file import read_header_entry
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.recognise import AUTO, RecognisedLayout, recognise
from rsa_pretrain.weights.metadata import (
    METADATA_KEY,
    BackboneMetadata,
    Origin,
    PublishedPlace,
    library_versions,
)
from rsa_pretrain.weights.tensor_check import all_finite

_MAX_EPOCHS = 1e6


@dataclass(frozen=True)
class ImportOptions:
    """Options a user may state about another project's file."""

    layout: str = AUTO
    """Name of its layout."""
    network: str | None = None
    """Network to take; None takes the layout's default."""
    prefix: str | None = None
    """Prefix of the network, if not as in its layout; everything elsewhere is dropped."""
    method: str | None = None
    """Pretraining method of the weights, for tables; None takes the layout's name."""
    data_set: str | None = None
    """Data set they were trained on; None if unknown."""
    pixels: Pixels | None = None
    """Input statistics instead of the layout's."""
    cifar_stem: bool = False
    """A 3x3 first convolution has stride 1, padding 1 and no max-pool after it."""
    allow_non_finite: bool = False
    """Accept NaN and infinity."""
    epochs: float | None = None
    """Epochs they were trained for; None takes what the file says."""
    published: PublishedPlace | None = None
    """Where the file was published."""


def is_own_file(path: Path) -> bool:
    """Return whether a path is a folder or a file of this toolkit's format.

    Raises:
        UserError: If it is neither a folder nor a regular file.
    """
    if path.is_dir():
        return True
    size = check_regular_file(path)
    return read_header_entry(path, size, METADATA_KEY) is not None


def import_weights(
    path: Path, options: ImportOptions, assumed_pixels: Pixels | None = None
) -> LoadedBackbone:
    """Take one network of another project's file, strictly, with its provenance.

    Args:
        path: The file.
        options: Options stated by the user.
        assumed_pixels: Input statistics if neither user, file nor layout states them.

    Returns:
        The backbone on the CPU in eval mode; its metadata says where it came from.

    Raises:
        UserError: If the file is unsafe, damaged, ambiguous, or contains anything but a backbone
            and tensors its layout drops by name; or if its input statistics are unknown.
    """
    content = read_checkpoint_file(path)
    found = recognise(
        content,
        options.layout,
        options.network,
        prefix=options.prefix,
        finite=not options.allow_non_finite,
        cifar_stem=options.cifar_stem,
    )
    return load_found(content, found, options, assumed_pixels)


def load_found(
    content: FileContent,
    found: RecognisedLayout,
    options: ImportOptions,
    assumed_pixels: Pixels | None = None,
) -> LoadedBackbone:
    """Build the backbone that a plan takes from a file.

    Args:
        content: The file.
        found: The plan.
        options: As for ``import_weights``.
        assumed_pixels: As for ``import_weights``.

    Raises:
        UserError: If its input statistics are unknown.
    """
    plan = found.plan
    pixels, whence = _pixels(found, options, assumed_pixels)
    with torch.device("meta"):
        backbone = build_backbone(plan.config)
    tensors = {name: tensor.clone().contiguous() for name, tensor in plan.tensors.items()}
    backbone.load_state_dict(tensors, strict=True, assign=True)
    metadata = _metadata(content, found, options, pixels, whence)
    return LoadedBackbone(backbone.eval(), metadata, content.path, content.sha256)


def write_import(path: Path, out: Path, options: ImportOptions) -> BackboneMetadata:
    """Import a file and write it in this toolkit's format; nothing is written on failure.

    Args:
        path: The file.
        out: File to write; must end in ``.safetensors``.
        options: Options stated by the user.

    Returns:
        The metadata written.

    Raises:
        UserError: If the file is refused, is already this toolkit's, or ``out`` is misnamed.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"'{out}' should end in .safetensors")
    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f"'{out}' is the file to import; name another")
    if is_own_file(path):
        own = find_weights(path)  # of a folder
        raise UserError(f"'{own}' is already in this toolkit's format; use it as it is")
    loaded = import_weights(path, options)
    save_tensors(out, loaded.backbone.state_dict(), loaded.metadata)
    return loaded.metadata


def _pixels(
    found: RecognisedLayout, options: ImportOptions, assumed: Pixels | None
) -> tuple[Pixels, str]:
    if options.pixels is not None:
        return options.pixels, "stated"
    if found.plan.pixels is not None:
        return found.plan.pixels, found.plan.layout.pixels_from
    if assumed is not None:
        return assumed, "the evaluation's data set's"
    raise UserError(
        f"layout {found.plan.layout.name} does not state the input statistics of a network with "
        f"the {found.plan.config.stem} stem; give them with rsa-pretrain import --mean and --std"
    )


def _metadata(
    content: FileContent,
    found: RecognisedLayout,
    options: ImportOptions,
    pixels: Pixels,
    whence: str,
) -> BackboneMetadata:
    plan = found.plan
    non_finite = [name for name, tensor in plan.tensors.items() if not all_finite(tensor)]
    return BackboneMetadata(
        format_version=FORMAT_VERSION,
        arch=plan.config.name,
        stem=plan.config.stem,
        method=options.method or plan.layout.name,
        image_size=None,
        channel_order="RGB",
        mean=pixels.mean,
        std=pixels.std,
        data_set=options.data_set,
        epochs=_epochs(content) if options.epochs is None else options.epochs,
        step=None,
        seed=None,
        config_hash=None,
        parent=content.sha256,
        library_versions=library_versions(),
        origin=Origin(
            file=content.path.name,
            layout=plan.layout.name,
            recognised=found.how,
            network=plan.network,
            prefix=plan.prefix,
            num_taken=len(plan.tensors) - len(plan.filled),
            dropped={why: len(paths) for why, paths in plan.dropped.items()},
            passed_over=dict(content.passed_over),
            filled=list(plan.filled),
            converted=dict(plan.converted),
            wrappers=plan.wrappers,
            pixels=whence,
            non_finite=non_finite,
            source=plan.layout.source,
            published=options.published,
        ),
    )


def _epochs(content: FileContent) -> float | None:
    """Return the epoch that training scripts store beside the weights, if it is plausible."""
    for key in ("epoch", "meta/epoch"):
        epoch = content.values.get(key)
        if isinstance(epoch, int | float) and 0 <= epoch <= _MAX_EPOCHS:
            return float(epoch)
    return None
