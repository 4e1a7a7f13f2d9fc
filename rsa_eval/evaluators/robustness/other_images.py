"""Open other images of the same classes: ImageNet-V2, -R, -A and -Sketch as published."""

from dataclasses import dataclass
from pathlib import Path

from rsa_eval.evaluators.robustness.shifts import Shift
from rsa_pretrain.data.image_folder import ImageFiles, class_folders, report_left_out, walk
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


@dataclass(frozen=True)
class OtherImages:
    """Images of all or some of the training classes."""

    images: ImageSet
    """Numbered like the training classes."""
    classes: list[int]
    """Numbers of the classes that may be predicted, in increasing order."""


def open_other_images(
    shift: Shift, folder: Path, class_names: list[str], rules: ReadRules
) -> OtherImages:
    """Open the images of the classes that the training images have, too.

    Only these may be predicted, as the authors of ImageNet-R and -A let a classifier of 1,000
    classes choose among their 200.

    Args:
        shift: The published set.
        folder: Its folder.
        class_names: WordNet ids of the training classes, in the order of their numbers.
        rules: How to read image files.

    Raises:
        UserError: If the folders of the classes are not the published ones, one is empty, only one
            class is a training class, or all are and their images are not as many as published.
    """
    found, left_out = class_folders(folder)
    if shift.form == "numbers":
        number = _numbers(shift, folder, found, class_names)
    else:
        number = _ids(shift, folder, found, class_names)
    names, left_out_below = walk(folder, number)
    report_left_out(folder, left_out | left_out_below)
    classes = [name.partition("/")[0] for name in names]
    empty = sorted(set(number) - set(classes))
    if empty:
        raise UserError(
            f"'{folder}' has no image of {len(empty)} classes: {first_of(empty)}; "
            f"{shift.how_to_get}"
        )
    if len(number) == shift.num_classes and len(names) != shift.num_images:
        raise UserError(
            f"'{folder}' (shifts.{shift.name}) has {len(names):,} images, {shift.label} has "
            f"{shift.num_images:,}; {shift.how_to_get}"
        )
    files = ImageFiles(folder, names, rules)
    labels = [number[name] for name in classes]
    return OtherImages(ImageSet(shift.name, files, labels, class_names), sorted(number.values()))


def _numbers(
    shift: Shift, folder: Path, found: list[str], class_names: list[str]
) -> dict[str, int]:
    """Return the class of each folder that is named by it: 10 is class 10, and not the third."""
    expected = [str(number) for number in range(len(class_names))]
    if set(found) != set(expected):
        differing = sorted(set(found) ^ set(expected))
        raise UserError(
            f"'{folder}' (shifts.{shift.name}) should have the folders 0 to {len(expected) - 1}, "
            f"the class numbers; {len(differing)} are missing or others: {first_of(differing)}; "
            f"{shift.how_to_get}"
        )
    return {name: int(name) for name in expected}


def _ids(shift: Shift, folder: Path, found: list[str], class_names: list[str]) -> dict[str, int]:
    """Return the class of each folder whose WordNet id is that of a training class."""
    if len(found) != shift.num_classes:
        raise UserError(
            f"'{folder}' (shifts.{shift.name}) has {len(found)} class folders, {shift.label} has "
            f"{shift.num_classes}; {shift.how_to_get}"
        )
    position = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in found if name not in position]
    if len(unknown) == len(found) or (unknown and len(class_names) >= 1000):
        raise UserError(
            f"'{folder}' (shifts.{shift.name}) has {len(unknown)} folders that are no training "
            f"class: {first_of(unknown)}; expected WordNet ids like {class_names[0]}; "
            f"{shift.how_to_get}"
        )
    known = {name: position[name] for name in found if name in position}
    if len(known) < 2:
        raise UserError(
            f"of the classes of {shift.label} only {first_of(sorted(known))} is a training class, "
            "so that every prediction would be right; train on more of them, or leave "
            f"shifts.{shift.name} out"
        )
    return known
