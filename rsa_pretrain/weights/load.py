"""Load weights of any origin, from disk or from where they are published."""

import logging
from functools import cache
from pathlib import Path

from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_backbone
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights, is_own_file
from rsa_pretrain.weights.remote.places import local_weights

_log = logging.getLogger(__name__)


def load_weights(place: str | Path, assumed_pixels: Pixels | None = None) -> LoadedBackbone:
    """Load a backbone of this toolkit or of any project whose layout is known.

    Args:
        place: Anything ``load_backbone`` takes, another project's file, or an address that
            ``local_weights`` downloads: ``zoo:NAME`` or ``hf://USER/NAME[@REVISION]``.
        assumed_pixels: Input statistics if neither the file nor its layout states them.

    Raises:
        UserError: If the file is refused, or cannot be downloaded.
    """
    path = local_weights(place)
    if is_own_file(path):
        return load_backbone(path)
    loaded = import_weights(path, ImportOptions(), assumed_pixels)
    origin = loaded.metadata.origin
    assert origin is not None, "an import keeps its origin"
    for line in origin.changes():
        _tell(path, line)
    return loaded


@cache
def _tell(path: Path, line: str) -> None:
    """Log how a file was read, once for all the evaluations that load it."""
    _log.info("'%s': %s", path, " ".join(line.split()))
