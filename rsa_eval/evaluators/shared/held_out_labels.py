"""Hold out images with several classes each, and check that every class can be learnt."""

import math
from collections.abc import Sequence

import numpy as np

from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.evaluators.shared.subsets import Rows, draw_percent
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


def multi_label_rows(
    truth: Truth,
    published: Rows | None,
    class_names: Sequence[str],
    percent: float,
    seed: int,
    *,
    key: str,
) -> Rows:
    """Return the places of the images that choose a setting: published ones, or a drawn share.

    Args:
        truth: 1 (present), -1 (absent) or 0 (left out) of the training images by class, (N, C).
        published: Places of the published validation images; None draws some of all images alike.
        class_names: Names of the C classes.
        percent: Share to draw.
        seed: Of the draw.
        key: Name of the setting for the share, for errors.

    Raises:
        UserError: If no validation image or no other one is of a class, or all of the latter are.
    """
    others = ""
    if published is None:
        others = f"; another seed or a larger {key} holds out others"
        published = _drawn_rows(len(truth), percent, seed, key)
    rest = np.setdiff1d(np.arange(len(truth)), published)
    require_classes(truth[published], (1,), class_names, "validation images", others)
    require_classes(truth[rest], (1, -1), class_names, "other training images", others)
    return published


def _drawn_rows(num_images: int, percent: float, seed: int, key: str) -> Rows:
    """Draw a share of two images or more, of which some are left."""
    alike = np.zeros(num_images, np.int64)
    rows = draw_percent(alike, percent, seed, at_least=0, leave=1)
    if not len(rows):
        raise UserError(
            f"{percent:g} % of {num_images} training images holds out none for selection; set "
            f"{key}={math.ceil(100 / num_images)}, which holds out one or more"
        )
    return rows


def require_classes(
    truth: Truth, values: Sequence[int], class_names: Sequence[str], images: str, others: str = ""
) -> None:
    """Check that each class has images with each of some values.

    Args:
        truth: 1, -1 or 0 of each image for each class, (N, C).
        values: The values.
        class_names: Names of the C classes.
        images: Name of the images, for errors.
        others: Further remedy, for errors.

    Raises:
        UserError: If a class has none.
    """
    for value in values:
        absent = ~(truth == value).any(axis=0)
        names = [name for name, is_absent in zip(class_names, absent, strict=True) if is_absent]
        if names:
            negation = "" if value == 1 else "not "
            raise UserError(
                f"none of the {len(truth)} {images} is {negation}of class {first_of(names)}; add "
                f"such images, or remove the class from all splits{others}"
            )
