"""List the published sets of shifted test images, and find their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_eval.evaluators.robustness.settings import ShiftFolders

_ALL_CLASSES, _SOME_CLASSES = ("imagenet",), ("imagenet", "imagenet100")


@dataclass(frozen=True)
class Shift:
    """A published set of shifted test images.

    Attributes:
        name: As in settings and metrics.
        label: Name used in papers.
        folder: Its published folder, below ``shifts.root``.
        data_sets: Names of the data sets whose classifiers it tests.
        form: ``arrays``: the test images corrupted, a ``.npy`` file per corruption; ``corrupted``:
            the same as files, CORRUPTION/SEVERITY/WNID/*.JPEG; ``generated``: the same, made by a
            library; ``ids``: other images, in a folder per WordNet id; ``numbers``: other images,
            in a folder per class number.
        num_classes: Published number of classes.
        how_to_get: Says where the files come from.
        num_images: Published number of other images; None where they are the test images.
    """

    name: str
    label: str
    folder: str
    data_sets: tuple[str, ...]
    form: Literal["arrays", "corrupted", "generated", "ids", "numbers"]
    num_classes: int
    how_to_get: str
    num_images: int | None = None

    @property
    def is_corrupted(self) -> bool:
        """True if its images are the test images with corruptions."""
        return self.form in ("arrays", "corrupted", "generated")


SHIFTS = (
    Shift(
        "cifar10_c", "CIFAR-10-C", "CIFAR-10-C", ("cifar10",), "arrays", 10,
        "fetch CIFAR-10-C.tar from https://zenodo.org/records/2535967 and unpack it",
    ),
    Shift(
        "cifar100_c", "CIFAR-100-C", "CIFAR-100-C", ("cifar100",), "arrays", 100,
        "fetch CIFAR-100-C.tar from https://zenodo.org/records/3555552 and unpack it",
    ),
    Shift(
        "imagenet_c", "ImageNet-C", "ImageNet-C", _SOME_CLASSES, "corrupted", 1000,
        "fetch noise.tar, blur.tar, weather.tar and digital.tar (and extra.tar) from "
        "https://zenodo.org/records/2235448 and unpack them all into one folder",
    ),
    Shift(
        "imagenet_v2", "ImageNet-V2", "imagenetv2-matched-frequency-format-val", _ALL_CLASSES,
        "numbers", 1000,
        "fetch imagenetv2-matched-frequency.tar.gz as "
        "https://github.com/modestyachts/ImageNetV2 says and unpack it",
        10_000,
    ),
    Shift(
        "imagenet_r", "ImageNet-R", "imagenet-r", _SOME_CLASSES, "ids", 200,
        "fetch imagenet-r.tar as https://github.com/hendrycks/imagenet-r says and unpack it",
        30_000,
    ),
    Shift(
        "imagenet_a", "ImageNet-A", "imagenet-a", _SOME_CLASSES, "ids", 200,
        "fetch imagenet-a.tar as https://github.com/hendrycks/natural-adv-examples says and "
        "unpack it",
        7_500,
    ),
    Shift(
        "imagenet_sketch", "ImageNet-Sketch", "sketch", _SOME_CLASSES, "ids", 1000,
        "fetch ImageNet-Sketch.zip as https://github.com/HaohanWang/ImageNet-Sketch says and "
        "unpack it",
        50_889,  # its page says 50 of each class; the archive has some more
    ),
)  # fmt: skip
"""The published sets, in the order of a record's metrics."""

GENERATED = Shift("generated", "generated corruptions", "", (), "generated", 0, "")
"""The test images of any data set, corrupted by a library."""


def shifts_of(data_set: str) -> list[Shift]:
    """Return the sets that test classifiers of a data set."""
    return [shift for shift in SHIFTS if data_set in shift.data_sets]


def folders_of(folders: ShiftFolders, data_set: str) -> dict[Shift, Path]:
    """Return the folder of each set of a data set that is named or below a root; it may not exist.

    Args:
        folders: Where they may be.
        data_set: Name of the data set.
    """
    found: dict[Shift, Path] = {}
    for shift in shifts_of(data_set):
        named: Path | None = getattr(folders, shift.name)
        folder = folders.root / shift.folder if named is None and folders.root else named
        if folder is not None:
            found[shift] = folder
    return found


def find_shifts(folders: ShiftFolders, data_set: str) -> tuple[dict[Shift, Path], dict[str, str]]:
    """Return the folder of each set that is present, and how to get the others, by name.

    Args:
        folders: Where they may be.
        data_set: Name of the data set.

    Raises:
        UserError: If a folder that is set does not exist, no set is present, or corruptions are
            to be generated beside published ones.
    """
    if folders.root is not None and not folders.root.is_dir():
        raise UserError(
            f"'{folders.root}' (shifts.root) is not a folder; set it to the folder that contains "
            "the published sets, or leave it out"
        )
    places = folders_of(folders, data_set)
    present = {shift: folder for shift, folder in places.items() if folder.is_dir()}
    for shift, folder in places.items():
        if shift not in present and getattr(folders, shift.name) is not None:
            raise UserError(
                f"'{folder}' (shifts.{shift.name}) is not a folder; {shift.how_to_get}, or leave "
                f"shifts.{shift.name} out"
            )
    absent = {each.name: each.how_to_get for each in shifts_of(data_set) if each not in present}
    published = [shift for shift in present if shift.is_corrupted]
    if folders.generate and published:
        raise UserError(
            f"shifts.generate is for data without published corruptions, but {published[0].label} "
            f"is in '{present[published[0]]}'; leave one of them out"
        )
    if not present and not folders.generate:
        ways = [f"shifts.{name}=FOLDER: {how}" for name, how in absent.items()]
        where = "" if folders.root is None else f" below '{folders.root}' (shifts.root)"
        raise UserError(
            f"no shifted test images of {data_set} are present{where}; set shifts.root to the "
            "folder that contains them, set shifts.generate=true, or name one: "
            f"{'; '.join(ways)}"
        )
    return present, absent
