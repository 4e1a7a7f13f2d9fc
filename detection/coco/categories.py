"""Look up the categories of a detector's labels, and check that two lists of them agree."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detection.coco.repair import repair
from detection.coco.validate import read_tree, sort_out
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

_log = logging.getLogger(__name__)

Categories = list[dict[str, Any]]


def check_same_categories(
    ours: Mapping[int, str], theirs: Mapping[int, str], our_source: str, their_source: str
) -> None:
    """Refuse category lists whose ids or names differ.

    Args:
        ours: Category names by id.
        theirs: Likewise.
        our_source: Name of the first list in errors.
        their_source: Name of the second.

    Raises:
        UserError: If ids or names differ.
    """
    sources = f"categories of {our_source} and {their_source} differ"
    if ours.keys() != theirs.keys():
        either = {**ours, **theirs}
        alone = [f"{number} ('{either[number]}')" for number in sorted(ours.keys() ^ theirs.keys())]
        raise UserError(
            f"{sources}: {len(ours)} and {len(theirs)} ids; only one has {first_of(alone)}"
        )
    renamed = [
        f"{number} is '{ours[number]}' and '{theirs[number]}'"
        for number in sorted(ours)
        if not is_same_name(ours[number], theirs[number])
    ]
    if renamed:
        raise UserError(f"{sources}: {first_of(renamed)}; both ids and names must agree")


def check_number(detector: Path, num_classes: int, num_listed: int, listing: Path) -> None:
    """Refuse an annotation file that lists another number of categories than a detector has."""
    if num_listed != num_classes:
        raise UserError(
            f"detector '{detector}' has {num_classes} categories, '{listing}' lists {num_listed}; "
            "give the annotation file it was trained on as --categories"
        )


def is_same_name(one: str, other: str) -> bool:
    """Return whether names are equal, ignoring case and surrounding blanks."""
    return one.strip().casefold() == other.strip().casefold()


def categories_of(
    detector: Path, num_classes: int, known: Mapping[int, str] | None, given: Path | None
) -> Categories:
    """Return COCO category entries for a detector's labels, in order of id.

    Args:
        detector: Its name in messages.
        num_classes: Its number of categories.
        known: Names stored in its file; None if it has none.
        given: COCO-format file that lists them; None takes the known ones, or else the labels 1 to
            ``num_classes`` themselves, with a warning.

    Raises:
        UserError: If the file cannot be read or lists another number.
    """
    if given is not None:
        found = _listed(given)
        check_number(detector, num_classes, len(found), given)
        return sorted(found, key=lambda entry: int(entry["id"]))
    if known is None:
        _log.warning(
            "'%s' does not name its categories; they are numbered from 1; name them with "
            "--categories",
            detector,
        )
        known = {number: f"category {number}" for number in range(1, num_classes + 1)}
    return [{"id": number, "name": known[number]} for number in sorted(known)]


def _listed(path: Path) -> Categories:
    repaired, _ = repair(read_tree(path, needs_annotations=False).tree, None)
    tree, _ = sort_out(repaired)
    categories: Categories = tree["categories"]
    return categories
