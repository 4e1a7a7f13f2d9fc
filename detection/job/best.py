"""The weights with a run's highest average precision, beside its checkpoints.

They are selected on the images that they are evaluated on, so their number is no result: the record
is of the last weights. The file itself says which iteration it is of and what was measured, so a
resumed run compares with it.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from detection.recipe import Count
from rsa_pretrain.plumbing.config.files import Section, parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import read_header
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.foreign.load import is_own_file

logger = logging.getLogger(__name__)

SELECTED = "selected on the images it is evaluated on, so it is no result"
_KEY = "rsa_best"

SaveWeights = Callable[[int, Path, dict[str, str]], None]
"""Writes the detector after so many iterations to a file, atomically, with notes."""


class Best(Section):
    """What makes weights the best of their run so far."""

    step: Count
    """Iterations taken."""
    metric: str
    value: float
    """In percent."""


def keep_best(file: Path, found: Best, save: SaveWeights) -> None:
    """Save the weights just evaluated if none before them were as good.

    Args:
        file: Holds the best so far, if there are any.
        found: What was measured.
        save: Writes them.
    """
    before = read_best(file)
    if before is None or before.metric != found.metric or found.value > before.value:
        save(found.step, file, {_KEY: found.model_dump_json()})


def read_best(file: Path) -> Best | None:
    """Return what a file of the best weights says of itself; None if it is absent or unreadable."""
    if not file.is_file():
        return None
    try:
        if is_own_file(file):
            note: object = read_header(file).get(_KEY)
        else:
            note = read_checkpoint_file(file).values.get(f"rsa_toolkit/{_KEY}")
        if not isinstance(note, str):
            raise UserError(f"it has no note {_KEY}")
        return parse_tree(Best, json.loads(note), f"the note {_KEY} of '{file}'")
    except (UserError, ValueError, RecursionError) as error:
        logger.warning("the best weights so far, '%s', cannot be compared with: %s", file, error)
        return None
