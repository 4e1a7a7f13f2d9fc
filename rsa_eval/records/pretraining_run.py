"""The pretraining run that a checkpoint comes from: its folder, and its settings for the record."""

import logging
from pathlib import Path
from typing import Any

from rsa_pretrain.config import CONFIG_FILE, PretrainConfig, load_run
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.metadata import BackboneMetadata

_log = logging.getLogger(__name__)


def run_folder_of(checkpoint: Path) -> Path | None:
    """Return the run folder a checkpoint lies in: runs/x of runs/x/checkpoints/last/file."""
    folders = [checkpoint, *checkpoint.absolute().parents[:3]]
    return next((folder for folder in folders if (folder / CONFIG_FILE).is_file()), None)


def pretraining_settings(path: Path, metadata: BackboneMetadata) -> dict[str, Any] | None:
    """Return every setting of the run that trained these weights, as plain values.

    Args:
        path: Their file.
        metadata: What it says of them.

    Returns:
        None for weights in no run folder, and for those of another project. A folder around them
        whose settings cannot be read or are of another run is none of theirs; a warning says so.
    """
    folder = run_folder_of(path)
    if folder is None or metadata.origin is not None:
        return None
    try:
        config = load_run(folder)
    except UserError as error:
        _log.warning("the record will not tell how the weights were trained: %s", error)
        return None
    if _made_by(config) != _made_of(metadata):
        _log.warning(
            "the record will not tell how the weights were trained: '%s' describes another run "
            "than the one that made '%s'",
            folder / CONFIG_FILE,
            path,
        )
        return None
    return to_tree(config)


def _made_by(config: PretrainConfig) -> tuple[object, ...]:
    network = config.backbone
    return (config.method.name, network.arch, network.stem, config.data.name, config.seed)


def _made_of(metadata: BackboneMetadata) -> tuple[object, ...]:
    return (metadata.method, metadata.arch, metadata.stem, metadata.data_set, metadata.seed)
