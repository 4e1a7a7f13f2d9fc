"""Draw small class-balanced subsets of the training images, or read published lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsa_eval.evaluators.shared.settings import Subset
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_files import read_text

Rows = npt.NDArray[np.int64]


def subset_rows(images: ImageSet, subset: Subset, seed: int) -> Rows:
    """Return the indices of a subset's images, in increasing order.

    Args:
        images: Labelled training images.
        subset: The subset.
        seed: Decides which images of a class are drawn; unused for a list.

    Raises:
        UserError: If a class has too few images, or a list does not match the images.
    """
    labels = np.asarray(images.require_labels())
    if subset.list_file is None:
        return draw_subset(labels, subset, seed, images.class_names, images.name)
    rows = _listed_rows(images, subset.list_file)
    _check_every_class(labels[rows], subset, images.class_names, images.name)
    return rows


def draw_subset(
    labels: Rows, subset: Subset, seed: int, class_names: Sequence[str], name: str
) -> Rows:
    """Draw a subset by its percentage or number per class.

    Args:
        labels: Class of each image.
        subset: The subset.
        seed: Seed of the draw.
        class_names: Names of all classes.
        name: Name of the data set, for errors.

    Raises:
        UserError: If a class has too few images.
    """
    if subset.percent is not None:
        rows = draw_percent(labels, subset.percent, seed)
    else:
        assert subset.per_class is not None
        rows = _draw_per_class(labels, subset.per_class, seed, class_names, name)
    _check_every_class(labels[rows], subset, class_names, name)
    return rows


def _check_every_class(labels: Rows, subset: Subset, class_names: Sequence[str], name: str) -> None:
    taken = set(labels.tolist())
    missing = [each for label, each in enumerate(class_names) if label not in taken]
    if missing:
        source = "training images" if subset.list_file is None else "list"
        raise UserError(
            f"the subset {subset.name} of {name} has no image of {len(missing)} of the "
            f"{len(class_names)} classes: {first_of(missing)}; add some to the {source}"
        )


def draw_percent(
    labels: Rows, percent: float, seed: int, *, at_least: int = 1, leave: int = 0
) -> Rows:
    """Draw a share of each class, rounded so that the total is that share of all images.

    Images lost by rounding down go to the classes that lose most by it.

    Args:
        labels: Class of each image.
        percent: In (0, 100].
        seed: Seed of the draw.
        at_least: Fewest images drawn from a class.
        leave: Images left in every class; takes precedence over ``at_least``.

    Returns:
        Indices in increasing order.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    wanted = sizes * percent / 100
    counts = np.floor(wanted).astype(np.int64)
    left_over = round(wanted.sum()) - counts.sum()
    counts[np.argsort(counts - wanted, kind="stable")[:left_over]] += 1
    counts = np.minimum(np.maximum(counts, at_least), sizes - leave)
    return _draw(labels, classes, counts, seed)


def _draw_per_class(
    labels: Rows, count: int, seed: int, class_names: Sequence[str], name: str
) -> Rows:
    classes, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < count:
        poorest = int(classes[sizes.argmin()])
        raise UserError(
            f"per_class={count}, but class '{class_names[poorest]}' of {name} has "
            f"{sizes.min()} images; set per_class={sizes.min()} or less"
        )
    return _draw(labels, classes, np.full(len(classes), count), seed)


def _draw(labels: Rows, classes: Rows, counts: Rows, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(np.flatnonzero(labels == label), count, replace=False)
        for label, count in zip(classes, counts, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _listed_rows(images: ImageSet, path: Path) -> Rows:
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise UserError(
            f"the list of images '{path}' is empty; expected one image per line, as NAME or "
            "CLASS/NAME"
        )
    rows_of = _rows_by_name(images, 2 if "/" in names[0] else 1)
    unknown = [name for name in names if name not in rows_of]
    if unknown:
        raise UserError(
            f"'{path}' lists {len(unknown)} images that are not among the training images of "
            f"{images.name}: {first_of(unknown)}; remove their lines"
        )
    rows = [row for name in names for row in rows_of[name]]
    if len(set(rows)) != len(names):
        odd = next(name for name in names if names.count(name) > 1 or len(rows_of[name]) > 1)
        raise UserError(
            f"'{path}' should list each image once, by a unique name: '{odd}' occurs "
            f"{names.count(odd)} times and is the name of {len(rows_of[odd])} images"
        )
    return np.array(sorted(rows))


def _rows_by_name(images: ImageSet, num_parts: int) -> dict[str, list[int]]:
    """Return image indices by the last ``num_parts`` parts of their paths."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(images.rows.tolist()):
        parts = images.sources.where(row).replace("\\", "/").split("/")
        found.setdefault("/".join(parts[-num_parts:]), []).append(index)
    return found


def class_counts(labels: Sequence[int]) -> dict[str, int]:
    """Return the sizes of the smallest and largest class present, for a record's details."""
    _, sizes = np.unique(labels, return_counts=True)
    return {"smallest_class": int(sizes.min()), "largest_class": int(sizes.max())}
