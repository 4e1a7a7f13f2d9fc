"""Open corrupted test images: CIFAR-10-C, CIFAR-100-C and ImageNet-C as published."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsa_eval.evaluators.robustness.corruption_error import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITY_LEVELS,
)
from rsa_eval.evaluators.robustness.shifts import Shift
from rsa_pretrain.data.image_folder import ImageFiles, class_folders, walk
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import PixelArray
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


@dataclass(frozen=True)
class CorruptedImages:
    """The test images under the corruptions that are present."""

    by_corruption: dict[str, list[ImageSet]]
    """One set per severity, in increasing order; its images are the test images in their order."""
    missing: list[str]
    """Those of the 15 corruptions that are not present."""
    deviations: list[str] = field(default_factory=list)
    """Departures from the published files."""


def open_corrupted(shift: Shift, folder: Path, test: ImageSet, rules: ReadRules) -> CorruptedImages:
    """Open the corrupted versions of the test images, of a subset if ``test`` is one.

    Args:
        shift: The published set.
        folder: Its folder.
        test: The clean test images.
        rules: How to read image files.

    Raises:
        UserError: If no corruption is present, or one is incomplete, damaged or of other images.
    """
    is_arrays, names = shift.form == "arrays", present_corruptions(shift, folder)
    missing = [name for name in CORRUPTIONS if name not in names]
    if len(missing) == len(CORRUPTIONS):
        expected = "fog.npy" if is_arrays else "fog/1/WNID/*.JPEG"
        raise UserError(
            f"'{folder}' (shifts.{shift.name}) has none of the corruptions, such as {expected}; "
            f"{shift.how_to_get}"
        )
    if is_arrays:
        _check_labels(shift, folder, test)
        opened = {name: _open_array(shift, folder, name, test) for name in names}
    else:
        opened = {name: _open_trees(shift, folder / name, test, rules) for name in names}
    return CorruptedImages(opened, missing)


def present_corruptions(shift: Shift, folder: Path) -> list[str]:
    """Return the names of the corruptions, extra ones too, that a published set's folder has."""
    suffix = ".npy" if shift.form == "arrays" else ""
    names = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    return [name for name in names if (folder / f"{name}{suffix}").exists()]


def _open_array(shift: Shift, folder: Path, corruption: str, test: ImageSet) -> list[ImageSet]:
    path, count = folder / f"{corruption}.npy", len(test.sources)
    array = _mapped(path, shift)
    side = test.sources.read(0)[0].size[0]
    expected = (len(SEVERITY_LEVELS) * count, side, side, 3)
    if array.dtype != np.uint8 or array.shape != expected:
        raise UserError(
            f"'{path}' has type {array.dtype} and shape {array.shape}, expected uint8 {expected}, "
            f"{count:,} images for each of {len(SEVERITY_LEVELS)} severities; {shift.how_to_get}"
        )
    names = [f"{shift.name}_{corruption}_{severity}" for severity in SEVERITY_LEVELS]
    blocks = [array[place * count : (place + 1) * count] for place in range(len(SEVERITY_LEVELS))]
    return [
        ImageSet(name, PixelArray(block, name), test.labels, test.class_names, test.rows)
        for name, block in zip(names, blocks, strict=True)
    ]


def _check_labels(shift: Shift, folder: Path, test: ImageSet) -> None:
    """Refuse corrupted images that are not the test images in their order."""
    path, count = folder / "labels.npy", len(test.sources)
    found = _mapped(path, shift)
    if found.dtype.kind not in "iu" or found.shape != (len(SEVERITY_LEVELS) * count,):
        raise UserError(
            f"'{path}' has type {found.dtype} and shape {found.shape}, expected integers "
            f"({len(SEVERITY_LEVELS) * count},); {shift.how_to_get}"
        )
    per_severity = found.reshape(len(SEVERITY_LEVELS), count)[:, test.rows]
    num_differing = int((per_severity != np.asarray(test.require_labels())).any(axis=0).sum())
    if num_differing:
        raise UserError(
            f"'{path}' gives {num_differing:,} of {len(test):,} images other classes than the test "
            f"images of {test.name} have, so its images are others or in another order; "
            f"{shift.how_to_get}"
        )


def _mapped(path: Path, shift: Shift) -> npt.NDArray[Any]:
    """Map an array from its file, copy-on-write."""
    try:
        found = np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no '{path}'; {shift.how_to_get}") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"'{path}' is damaged or no .npy file ({error}); {shift.how_to_get}") from (
            None
        )
    if not isinstance(found, np.ndarray):
        raise UserError(f"'{path}' is no .npy file but an archive; {shift.how_to_get}")
    return found


def _open_trees(shift: Shift, folder: Path, test: ImageSet, rules: ReadRules) -> list[ImageSet]:
    keys = test.keys()
    wanted = {key.partition("/")[0] for key in keys}
    opened = []
    for severity in SEVERITY_LEVELS:
        below = folder / str(severity)
        if not below.is_dir():
            raise UserError(f"'{below}' is not a folder; {shift.how_to_get}")
        folders = [name for name in class_folders(below).names if name in wanted]
        lacking = sorted(set(keys).difference(walk(below, folders).names))
        if lacking:
            raise UserError(
                f"'{below}' lacks {len(lacking):,} of the {len(keys):,} test images: "
                f"{first_of(lacking)}; {shift.how_to_get}"
            )
        name = f"{shift.name}_{folder.name}_{severity}"
        files = ImageFiles(below, keys, rules)
        opened.append(ImageSet(name, files, test.labels, test.class_names))
    return opened
