"""The categories that a detector's labels stand for, where the images come without them."""

import logging
from pathlib import Path
from typing import Any

from detection.coco_format import read_tree, sort_out
from detection.coco_repair import repair
from detection.run import RECORD_FILE
from rsa_eval.record import read_record
from rsa_pretrain.errors import UserError

logger = logging.getLogger(__name__)

Categories = list[dict[str, Any]]


def categories_of(detector: Path, num_classes: int, given: Path | None) -> Categories:
    """Return COCO's entries of the categories, by rising id, as the labels are.

    Args:
        detector: Run folder or file; a finished run's record lists its categories.
        num_classes: How many the detector has.
        given: COCO-format file that lists them; None takes the run's, or else the labels 1 to
            ``num_classes`` themselves, with a warning.

    Raises:
        UserError: If a file cannot be read or lists another number.
    """
    if given is not None:
        source, found = given, _listed(given)
    elif (detector / RECORD_FILE).is_file():
        source = detector / RECORD_FILE
        found = [
            {"id": entry["id"], "name": entry["name"]}
            for entry in read_record(source).details["categories"]
        ]
    else:
        logger.warning(
            "'%s' does not say what its categories are called; they are numbered from 1; "
            "--categories names them",
            detector,
        )
        return [
            {"id": number, "name": f"category {number}"} for number in range(1, num_classes + 1)
        ]
    if len(found) != num_classes:
        raise UserError(
            f"'{detector}' knows {num_classes} categories, '{source}' lists {len(found)}"
        )
    return sorted(found, key=lambda entry: int(entry["id"]))


def _listed(path: Path) -> Categories:
    repaired, _ = repair(read_tree(path, needs_annotations=False).tree, None)
    tree, _ = sort_out(repaired)
    categories: Categories = tree["categories"]
    return categories
