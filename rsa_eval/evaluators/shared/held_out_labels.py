"""Hold out images with several classes each, and check that every class can be learnt."""

from collections.abc import Sequence

import numpy as np

from rsa_eval.evaluators.shared.held_out import held_out_rows
from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.evaluators.shared.subsets import Rows
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
        published = held_out_rows(np.zeros(len(truth), np.int64), percent, seed, key=key, unit=1)
    rest = np.setdiff1d(np.arange(len(truth)), published)
    require_classes(truth[published], (1,), class_names, "validation images", others)
    require_classes(truth[rest], (1, -1), class_names, "other training images", others)
    return published


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
