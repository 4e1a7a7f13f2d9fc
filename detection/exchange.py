"""A whole trained detector, from this toolkit's torchvision engine to detectron2 or back.

The direction follows from the file. Either way every tensor is used once, and the written file is
read back, renamed again and compared bitwise before it takes its name. Both then find the same
boxes, classes and masks (``tests/detection/test_engines_agree.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from detection.detectron2_anchors import read_anchors
from detection.detectron2_file import SUFFIXES, write_weights
from detection.detectron2_model import (
    check_settings,
    describe_model,
    paired_model_config,
    recognise_arch,
)
from detection.detectron2_pixels import pixels_of_config, read_config
from detection.generated import check_generated
from detection.job import METHOD
from detection.model_weights import to_detectron2_model, to_torchvision_model, unread_rows
from detection.recipe import DEFAULT_ANCHORS, Anchors
from rsa_pretrain.atomic_files import atomic_file, write_text
from rsa_pretrain.checkpoint import (
    FORMAT_VERSION,
    MODEL_FILE,
    BackboneMetadata,
    file_sha256,
    library_versions,
    read_tensors,
    save_tensors,
)
from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.file_content import FileContent, read_checkpoint_file
from rsa_pretrain.foreign.layouts.detectron2 import toolkit_metadata
from rsa_pretrain.foreign.load import is_own_file

OWN_SUFFIX = ".safetensors"
_MODEL_PREFIX = "model/"
_METADATA = "metadata"
_YAML_NAMES = ("config.yaml", "detectron2.yaml")
_HEADER = """\
# detectron2 keys that belong to these weights; norms may be SyncBN in place of BN. Numbers of
# anchors, proposals and regions are the recipe's, not the weights'.
"""


@dataclass(frozen=True)
class Exchange:
    """What was written."""

    weights: Path
    config: Path | None
    """detectron2's keys beside its weights."""
    num_tensors: int
    unread: list[str]
    """Layers whose background rows were left out, or written as 0."""


def exchange(source: Path, out: Path) -> Exchange:
    """Convert a detector to the other library's file.

    Args:
        source: Run folder, checkpoint folder or safetensors file of the torchvision engine; or
            detectron2's ``.pth`` or ``.pkl``, by full names.
        out: ``.pth`` or ``.pkl`` in the first case, ``.safetensors`` in the second.

    Raises:
        UserError: If ``source`` is not such a detector, its settings compute something else than
            the torchvision engine does or are not known, or ``out`` has another suffix.
        RuntimeError: If the written file does not give the source back; nothing is left then.
    """
    if not source.exists():
        raise UserError(f"'{source}' does not exist")
    return _to_detectron2(source, out) if is_own_file(source) else _from_detectron2(source, out)


def read_detector(path: Path) -> tuple[dict[str, Tensor], BackboneMetadata, Path]:
    """Read a trained detector of the torchvision engine.

    Args:
        path: Run folder, checkpoint folder or safetensors file.

    Returns:
        Its tensors, their metadata and the file they came from.

    Raises:
        UserError: If there is none.
    """
    candidates = [path / MODEL_FILE, path / "checkpoints" / "last" / MODEL_FILE]
    file = path if path.is_file() else next((f for f in candidates if f.is_file()), None)
    if file is None:
        raise UserError(f"'{path}' holds no {MODEL_FILE} and no checkpoints/last of this engine")
    tensors, metadata = read_tensors(file)
    if metadata.method != METHOD:
        raise UserError(f"'{file}' is not a detector: its method is '{metadata.method}'")
    return tensors, metadata, file


def anchors_of(metadata: BackboneMetadata) -> Anchors:
    """Return a detector's anchors; the defaults, as all had, where its file does not name them."""
    return DEFAULT_ANCHORS


def _to_detectron2(source: Path, out: Path) -> Exchange:
    if out.suffix not in SUFFIXES:
        raise UserError(
            f"'{out}' must end in .pth or .pkl: '{source}' is converted to detectron2, which "
            "chooses its reader by that"
        )
    config = out.with_suffix(".yaml")
    check_generated(config, _HEADER)
    tensors, metadata, file = read_detector(source)
    model = to_detectron2_model(tensors)
    extra = {_METADATA: metadata.model_dump_json(), "source_sha256": file_sha256(file)}
    with atomic_file(out) as temporary:
        write_weights(temporary, model, extra)
        written = _model_of(read_checkpoint_file(temporary))
        _prove(to_torchvision_model(written), _without_unread_rows(tensors))
    tree = paired_model_config(tensors, metadata, anchors_of(metadata), out)
    write_text(config, _HEADER + yaml.safe_dump(tree, sort_keys=False))
    return Exchange(out, config, len(model), sorted(unread_rows(tensors)))


def _from_detectron2(source: Path, out: Path) -> Exchange:
    if out.suffix != OWN_SUFFIX:
        raise UserError(
            f"'{out}' must end in {OWN_SUFFIX}: '{source}' is converted from detectron2"
        )
    content = read_checkpoint_file(source)
    model = _model_of(content)
    try:
        tensors = to_torchvision_model(model)
    except ValueError as error:
        raise UserError(
            f"'{source}' is not a detector that the engine can build: {error}"
        ) from None
    metadata, anchors = _describe(content, model, tensors)
    if anchors != anchors_of(metadata):
        raise UserError(
            f"'{source}' has anchors of {_in_words(anchors)}, which '{out}' could not name"
        )
    with atomic_file(out) as temporary:
        save_tensors(temporary, tensors, metadata)
        _prove(to_detectron2_model(read_tensors(temporary)[0]), model)
    return Exchange(out, None, len(model), sorted(unread_rows(tensors)))


def _model_of(content: FileContent) -> dict[str, Tensor]:
    """Return the tensors under ``model``, or all of a file that has nothing else."""
    inside = {
        name.removeprefix(_MODEL_PREFIX): tensor
        for name, tensor in content.tensors.items()
        if name.startswith(_MODEL_PREFIX)
    }
    return inside or dict(content.tensors)


def _in_words(anchors: Anchors) -> str:
    sizes, ratios = (", ".join(f"{number:g}" for number in part) for part in anchors)
    return f"{sizes} pixels and aspect ratios {ratios}"


def _describe(
    content: FileContent, model: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> tuple[BackboneMetadata, Anchors]:
    """Describe detectron2's weights, as this toolkit noted in the file or by the YAML beside it."""
    arch = recognise_arch(model)
    noted = toolkit_metadata(content)
    if noted is not None:
        if noted.arch != arch:
            raise UserError(f"'{content.path}' says {noted.arch}, its tensors are a {arch}'s")
        anchors = anchors_of(noted)
        describe_model(tensors, arch, anchors)
        update = {"parent": content.sha256, "library_versions": library_versions()}
        return noted.model_copy(update=update), anchors
    path = _config_beside(content.path)
    settings = read_config(path)
    anchors = read_anchors(settings, path)
    check_settings(settings, describe_model(tensors, arch, anchors), path)
    pixels = pixels_of_config(path)
    metadata = BackboneMetadata(
        format_version=FORMAT_VERSION,
        arch=arch,
        stem="standard",
        method=METHOD,
        image_size=None,
        channel_order="RGB",
        mean=pixels.mean,
        std=pixels.std,
        data_set=None,
        epochs=None,
        step=None,
        seed=None,
        config_hash=None,
        parent=content.sha256,
        library_versions=library_versions(),
    )
    return metadata, anchors


def _config_beside(file: Path) -> Path:
    """Find detectron2's keys: the YAML of a conversion, or what its trainer wrote."""
    candidates = [file.with_suffix(".yaml"), *(file.parent / name for name in _YAML_NAMES)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(
            f"'{file}' does not say how its pixels are normalised: put detectron2's config beside "
            f"it, as {' or '.join(candidate.name for candidate in candidates)}"
        )
    return path


def _without_unread_rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with 0 where nothing reads them."""
    copies = dict(tensors)
    for module, rows in unread_rows(tensors).items():
        for name in (f"{module}.weight", f"{module}.bias"):
            copies[name] = tensors[name].clone()
            copies[name][:rows] = 0
    return copies


def _prove(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    wrong = [
        name
        for name in sorted(found.keys() | expected.keys())
        if name not in found
        or name not in expected
        or found[name].dtype != expected[name].dtype
        or not torch.equal(found[name], expected[name])
    ]
    if wrong:
        raise RuntimeError(f"the written file does not give back the detector: {wrong[:5]}")
