"""Find a checkpoint's pretraining run: its folder, and its settings for the record."""

import logging
from pathlib import Path
from typing import Any

from rsa_pretrain.config import CONFIG_FILE, PretrainConfig, load_run
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.metadata import BackboneMetadata

_log = logging.getLogger(__name__)


def run_folder_of(checkpoint: Path) -> Path | None:
    """Return the run folder that contains a checkpoint: runs/x of runs/x/checkpoints/last/file."""
    folders = [checkpoint, *checkpoint.absolute().parents[:3]]
    return next((folder for folder in folders if (folder / CONFIG_FILE).is_file()), None)


def pretraining_settings(path: Path, metadata: BackboneMetadata) -> dict[str, Any] | None:
    """Return every setting of the run that trained these weights, as plain values.

    Args:
        path: File of the weights.
        metadata: The file's description of them.

    Returns:
        None for weights outside a run folder or from another project, and, with a warning, if the
        folder's settings cannot be read or belong to another run.
    """
    folder = run_folder_of(path)
    if folder is None or metadata.origin is not None:
        return None
    try:
        config = load_run(folder)
    except UserError as error:
        _log.warning("the record will lack the pretraining settings: %s", error)
        return None
    if _made_by(config) != _made_of(metadata):
        _log.warning(
            "the record will lack the pretraining settings: '%s' describes a different run than "
            "the one that made '%s'",
            folder / CONFIG_FILE,
            path,
        )
        return None
    return to_tree(config)


def _made_by(config: PretrainConfig) -> tuple[object, ...]:
    network = config.backbone
    return (config.method.name, network.name, network.stem, config.data.name, config.seed)


def _made_of(metadata: BackboneMetadata) -> tuple[object, ...]:
    return (metadata.method, metadata.arch, metadata.stem, metadata.data_set, metadata.seed)
