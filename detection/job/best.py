"""Keep the weights with a run's highest average precision beside its checkpoints.

They are selected on the images that they are evaluated on, so their score is not a result: the
record is of the final weights. The file itself states its iteration and score, so that a resumed
run can compare with it.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from detection.recipe.architecture import Count
from rsa_pretrain.plumbing.config.files import Section, parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import read_header
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.foreign.load import is_own_file
from rsa_pretrain.weights.metadata import METADATA_KEY

_log = logging.getLogger(__name__)

SELECTED = "selected on its own test images, so not a test result"
_KEY = "rsa_best"

SaveWeights = Callable[[int, Path, dict[str, str]], None]
"""Writes the detector after this many iterations to a file, atomically, with notes."""


class Best(Section):
    """Score and iteration of a run's best weights so far."""

    step: Count
    """Iterations taken."""
    metric: str
    value: float
    """In percent."""


def keep_best(file: Path, found: Best, save: SaveWeights) -> None:
    """Save the weights just evaluated if none before them were as good.

    Args:
        file: The best weights so far, if any.
        found: Score of the current weights.
        save: Writes the current weights.
    """
    before = read_best(file)
    if before is None or before.metric != found.metric or found.value > before.value:
        save(found.step, file, {_KEY: found.model_dump_json()})


def read_best(file: Path) -> Best | None:
    """Return the score stored with the best weights; None if the file is missing or unreadable."""
    if not file.is_file():
        return None
    try:
        if is_own_file(file):
            note: object = read_header(file).get(_KEY)
        else:
            note = read_checkpoint_file(file).values.get(f"{METADATA_KEY}/{_KEY}")
        if not isinstance(note, str):
            raise UserError(f"it has no note {_KEY}")
        return parse_tree(Best, json.loads(note), f"the note {_KEY} of '{file}'")
    except (UserError, ValueError, RecursionError) as error:
        _log.warning("cannot compare with the best weights so far, '%s': %s", file, error)
        return None
