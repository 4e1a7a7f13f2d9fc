"""Save and load checkpoints in one format: versioned, strict, safe to read, never half-written.

A run folder contains

    config.yaml                       every setting, resolved
    metrics.jsonl                     one JSON object per logged interval
    tensorboard/                      the same values, for TensorBoard
    machines.json                     hardware it was trained on
    checkpoints/step-NNNNNNNN/
        model.safetensors             the method's networks (``backbone.…`` and its others)
        trainer.pt                    optimizer, step, random state; read with weights_only
    checkpoints/last                  link to the newest checkpoint
    backbone.safetensors              at the end: only the backbone, torchvision's names
    profile/                          with --profile: trace.json.gz, summary.txt
    records/                          with rsa-eval: one JSON record per evaluation
    .lock                             locked while a process trains

Both safetensors files carry ``BackboneMetadata`` as JSON under the header key ``rsa_toolkit``.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.plumbing.atomic_files import atomic_file, atomic_folder, point_link, remove_folder
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.regular_file import ABSENT, check_not_distributed, unchanged
from rsa_pretrain.weights.files.saving import save_safetensors, save_torch
from rsa_pretrain.weights.files.values_file import load_values
from rsa_pretrain.weights.metadata import METADATA_KEY, BackboneMetadata
from rsa_pretrain.weights.tensor_check import check_tensors

FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"
TRAINER_FILE = "trainer.pt"
BACKBONE_FILE = "backbone.safetensors"
BACKBONE_PREFIX = "backbone."
NOT_A_BACKBONE = (
    "a trained detector, not a backbone: rsa-detect export writes it for other runtimes, "
    "rsa-detect unconvert extracts its backbone"
)
_DELETE = "delete its folder to resume from the checkpoint before it"
_STEP_FOLDER = re.compile(r"step-\d{8,}")
_DETECTOR_HEADS = re.compile(r"(^|/)roi_heads\.")
_DETECTRON2_CHECKPOINTS = "checkpoints/model_*.pth"


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone with every tensor loaded from ``path``."""

    backbone: nn.Module
    metadata: BackboneMetadata
    path: Path
    sha256: str


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: BackboneMetadata,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write tensors and metadata as safetensors, atomically.

    Args:
        path: File to write.
        tensors: Tensors by name.
        metadata: Metadata of the backbone among them.
        notes: Extra entries of the file's header, read by ``read_header``.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        header = {METADATA_KEY: metadata.model_dump_json(), **(notes or {})}
        save_safetensors(content, temporary, header)


def save_checkpoint(
    run_dir: Path,
    model_state: Mapping[str, Tensor],
    metadata: BackboneMetadata,
    trainer_state: Mapping[str, Any],
    keep: int | None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write one checkpoint, point ``last`` at it and delete the oldest beyond ``keep``.

    A kill at any moment leaves the previous checkpoint in place and readable.

    Args:
        run_dir: Run folder.
        model_state: The method's state; backbone tensors under ``backbone.``.
        metadata: Describes the backbone; ``metadata.step`` names the folder.
        trainer_state: Tensors and plain values only.
        keep: Number of checkpoints to keep; None keeps all.
        notes: As for ``save_tensors``.

    Returns:
        The checkpoint folder.
    """
    folder = run_dir / "checkpoints" / f"step-{metadata.step:08d}"
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / MODEL_FILE, model_state, metadata, notes)
        save_torch(dict(trainer_state), temporary / TRAINER_FILE)
    point_link(folder.parent / "last", folder.name)
    prune_checkpoints(run_dir, keep)
    return folder


def prune_checkpoints(run_dir: Path, keep: int | None) -> None:
    """Delete a run's oldest checkpoints beyond ``keep``; None keeps all."""
    if keep is not None:
        for old in list_checkpoints(run_dir)[:-keep]:
            remove_folder(old)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return a run's checkpoint folders, oldest first."""
    folder = run_dir / "checkpoints"
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if _STEP_FOLDER.fullmatch(path.name))
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(run_dir: Path) -> Path | None:
    """Return the folder of a run's last checkpoint, None if it has none."""
    last = run_dir / "checkpoints" / "last"
    if last.is_symlink() and last.exists():
        return last.parent / last.readlink()  # a training may point the link elsewhere at any time
    if last.exists():
        return last
    # A copied folder may have lost its links.
    checkpoints = list_checkpoints(run_dir)
    return checkpoints[-1] if checkpoints else None


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], BackboneMetadata, dict[str, Any]]:
    """Read a complete checkpoint folder, to resume from it.

    Args:
        folder: A ``step-NNNNNNNN`` folder, or ``last``.

    Returns:
        The method's tensors, their metadata, and the trainer's state.

    Raises:
        UserError: If a file is missing, damaged or of another format.
    """
    tensors, metadata = read_tensors(folder / MODEL_FILE)
    path = folder / TRAINER_FILE
    if not path.is_file():
        raise UserError(f"'{path}' is not a file; a checkpoint to resume from must contain it")
    try:
        trainer_state = load_values(path)
    except ValueError:
        raise UserError(
            f"'{path}' is damaged or contains more than tensors and values; {_DELETE}"
        ) from None
    if not isinstance(trainer_state, dict):
        raise UserError(f"'{path}' contains no trainer state; {_DELETE}")
    return tensors, metadata, trainer_state


def load_backbone(path: Path) -> LoadedBackbone:
    """Load a backbone strictly: every tensor present, finite, and of the right shape and type.

    Args:
        path: A run folder (its final ``backbone.safetensors``, or its last checkpoint while
            it is unfinished), a checkpoint folder, or a safetensors file of this format.

    Returns:
        The backbone on the CPU in eval mode, with its metadata and the file's hash.

    Raises:
        UserError: If the file is missing, damaged, of another format, a detector, or not exactly
            the backbone its metadata names; lists missing, unexpected and misshapen tensors. If a
            running training replaces or deletes the file meanwhile.
    """
    file = find_weights(path)
    with unchanged(file):
        tensors, metadata = read_tensors(file)
        sha256 = file_sha256(file)
    if is_detector(tensors):
        raise UserError(f"'{file}' is {NOT_A_BACKBONE}")
    if file.name == MODEL_FILE:
        tensors = {
            name.removeprefix(BACKBONE_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(BACKBONE_PREFIX)
        }
    with torch.device("meta"):  # no random initialisation: it would advance the global generator
        backbone = build_backbone(metadata.network)
    allowed = metadata.origin is not None and bool(metadata.origin.non_finite)
    check_tensors(
        tensors, backbone.state_dict(), f"'{file}' as {metadata.arch}", finite=not allowed
    )
    backbone.load_state_dict(tensors, strict=True, assign=True)
    return LoadedBackbone(backbone.eval(), metadata, file, sha256)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], BackboneMetadata]:
    """Read a safetensors file of this format.

    Raises:
        UserError: If it cannot be read, is damaged, or carries no metadata of this format.
    """
    if not path.is_file():
        raise UserError(f"'{path}' is not a file; expected a checkpoint of this toolkit")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            metadata = _parse_metadata(header, path)
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"'{path}' is not a complete safetensors file ({error}); "
            "expected a checkpoint of this toolkit"
        ) from None


def read_header(path: Path) -> dict[str, str]:
    """Return the metadata entries in the header of a safetensors file.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"'{path}' is not a complete safetensors file ({error})") from None


def is_detector(names: Iterable[str]) -> bool:
    """Return whether tensor names are those of a whole detector of either detection engine."""
    return any(map(_DETECTOR_HEADS.search, names))


def find_weights(path: Path) -> Path:
    """Return the weights file of a run folder or checkpoint folder; a file is returned as is.

    Raises:
        UserError: If there is none.
    """
    if not path.exists():
        raise UserError(f"checkpoint '{path}' {ABSENT}")
    if path.is_file():
        return path
    folders = [path, newest_checkpoint(path) or path]
    for file in (path / BACKBONE_FILE, *(folder / MODEL_FILE for folder in folders)):
        if file.is_file():
            return file
    if any(path.glob(_DETECTRON2_CHECKPOINTS)):
        raise UserError(f"'{path}' is {NOT_A_BACKBONE}")
    check_not_distributed(path)
    raise UserError(
        f"'{path}' contains neither {BACKBONE_FILE} nor {MODEL_FILE} nor checkpoints/last; "
        "expected a run folder, a checkpoint folder or a file"
    )


def _parse_metadata(header: Mapping[str, str], path: Path) -> BackboneMetadata:
    if METADATA_KEY not in header:
        raise UserError(
            f"'{path}' has no '{METADATA_KEY}' metadata, so it is not of this toolkit; "
            "rsa-pretrain import converts the backbones of other projects"
        )
    try:
        tree = json.loads(header[METADATA_KEY])
    except (ValueError, RecursionError):
        raise UserError(
            f"the metadata of '{path}' is not JSON; restore the file from a copy"
        ) from None
    found = tree.get("format_version") if isinstance(tree, dict) else None
    if found != FORMAT_VERSION:
        raise UserError(
            f"'{path}' has format version {found}, expected {FORMAT_VERSION}; "
            "use the toolkit version that wrote it"
        )
    return parse_tree(BackboneMetadata, tree, f"metadata of '{path}'")
