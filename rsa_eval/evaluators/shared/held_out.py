"""Hold out training images for choosing a setting."""

import logging
import math

import numpy as np

from rsa_eval.evaluators.shared.subsets import Rows, draw_percent
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.errors import UserError

_log = logging.getLogger(__name__)


def held_out_rows(labels: Rows, percent: float, seed: int, *, key: str, unit: float) -> Rows:
    """Draw a validation share of each class; every class keeps an image to train on.

    Args:
        labels: Class of each training image.
        percent: In (0, 100).
        seed: Of the draw.
        key: Name of the setting for the share, for errors.
        unit: Value of that setting for one percent.

    Raises:
        UserError: If no image would be held out; names a share that gives one of each class, or
            says that none can.
    """
    rows = draw_percent(labels, percent, seed, at_least=0, leave=1)
    _, sizes = np.unique(labels, return_counts=True)
    divisible = sizes[sizes > 1]
    if len(rows):
        num_classes = len(np.unique(labels[rows]))
        if num_classes < len(sizes):
            _log.warning(
                "%d of %d training images are held out for selection, from %d of %d classes; "
                "a larger %s holds out more",
                len(rows),
                len(labels),
                num_classes,
                len(sizes),
                key,
            )
        return rows
    if not len(divisible):
        raise UserError(
            f"each of {len(sizes)} classes has a single training image, so none can be held out "
            "for selection; a class needs two images or more"
        )
    enough = math.ceil(100 / divisible.min())
    raise UserError(
        f"{percent:g} % of {len(labels)} training images holds out none for selection; set "
        f"{key}={enough * unit:g}, which holds out an image of each class that has two or more"
    )


def published_rows(train: ImageSet, validation: ImageSet) -> Rows:
    """Return the places of the published validation images among the training images.

    Raises:
        UserError: If none or all of the training images are among them.
    """
    known, keys = set(validation.keys()), train.keys()
    rows = np.flatnonzero([key in known for key in keys])
    if not 0 < len(rows) < len(train):
        raise UserError(
            f"{len(rows)} of {len(train)} training images of {train.name} are published validation "
            "images, expected some and others; use more of the training images"
        )
    return rows
