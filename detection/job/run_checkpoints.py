"""Find a detection run's newest complete checkpoint, whichever program wrote it.

The torchvision engine writes folders, ``checkpoints/step-NNNNNNNN``; detectron2 writes files,
``model_NNNNNNN.pth`` and finally ``model_final.pth``. The newest is found by name: a pointer file
like detectron2's ``last_checkpoint`` may be stale or empty after a kill.
"""

import logging
import math
import re
import zipfile
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import MODEL_FILE, list_checkpoints
from rsa_pretrain.weights.files.regular_file import ABSENT

_log = logging.getLogger(__name__)

_CHECKPOINTS = "checkpoints"
_FILE = re.compile(r"model_(?:(\d{7,})|final)\.pth")


def newest_checkpoint(run_dir: Path) -> Path | None:
    """Return a run's newest complete checkpoint, a folder or a file; None if it has none.

    Raises:
        UserError: If it has files, none of them complete.
    """
    found = [*list_checkpoint_files(run_dir / _CHECKPOINTS), *list_checkpoints(run_dir)]
    return found[-1] if found else None


def list_checkpoint_files(folder: Path) -> list[Path]:
    """Return detectron2's complete checkpoints directly in a folder, oldest first.

    Raises:
        UserError: If there are some, but none is complete.
    """
    if not folder.is_dir():
        return []
    files = sorted((path for path in folder.iterdir() if _FILE.fullmatch(path.name)), key=_number)
    # A truncated archive lacks the table at its end.
    whole = [file for file in files if zipfile.is_zipfile(file)]
    cut = [file.name for file in files if file not in whole]
    if cut and not whole:
        raise UserError(f"'{folder}' has no complete checkpoint: truncated {', '.join(cut)}")
    if cut:
        _log.warning("skipped truncated checkpoints in '%s': %s", folder, ", ".join(cut))
    return whole


def detector_file(path: Path) -> Path:
    """Return the weights file of a trained detector.

    Args:
        path: A run folder, detectron2's OUTPUT_DIR, a checkpoint folder or the file itself.

    Raises:
        UserError: If there is no complete one.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"detector '{path}' {ABSENT}")
    newest = path if (path / MODEL_FILE).is_file() else newest_checkpoint(path)
    if newest is None:
        newest = next(iter(list_checkpoint_files(path)[-1:]), None)
    if newest is None:
        raise UserError(
            f"'{path}' has no detector: neither {MODEL_FILE} nor complete {_CHECKPOINTS}/ of "
            "either engine; name a run folder or the file itself"
        )
    return newest / MODEL_FILE if newest.is_dir() else newest


def _number(file: Path) -> float:
    found = _FILE.fullmatch(file.name)
    assert found is not None, "only such names are listed"
    return math.inf if found[1] is None else int(found[1])
