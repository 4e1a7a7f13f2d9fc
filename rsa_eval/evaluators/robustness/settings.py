"""Settings of the robustness of a classifier of frozen features."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from rsa_eval.evaluators.logistic.settings import LogisticConfig
from rsa_eval.evaluators.robustness.shifts import SHIFTS, shifts_of
from rsa_pretrain.plumbing.config.files import Section

_SMALLEST_CORRUPTED = 32  # imagecorruptions takes no smaller images


class ShiftFolders(Section):
    """Folders of shifted test images, as published and unpacked; nothing is downloaded."""

    root: Path | None = None
    """Folder below which the sets have their published names, such as CIFAR-10-C, imagenet-r or
    sketch; those that are not there are left out, and the record lists them."""
    cifar10_c: Path | None = None
    """CIFAR-10-C: CORRUPTION.npy and labels.npy."""
    cifar100_c: Path | None = None
    """CIFAR-100-C: the same."""
    imagenet_c: Path | None = None
    """ImageNet-C: CORRUPTION/SEVERITY/WNID/*.JPEG, all its archives in one folder."""
    imagenet_v2: Path | None = None
    """ImageNet-V2: folders 0 to 999, the class numbers."""
    imagenet_r: Path | None = None
    """ImageNet-R: 200 folders named by WordNet ids."""
    imagenet_a: Path | None = None
    """ImageNet-A: the same."""
    imagenet_sketch: Path | None = None
    """ImageNet-Sketch: 1,000 such folders."""
    generate: bool = False
    """Corrupt the test images of any data set by the library imagecorruptions (extra robustness),
    at ImageNet-C's strengths; not comparable with published numbers."""


class RobustnessConfig(LogisticConfig):
    """Logistic regression on features extracted once, tested on shifted images, too."""

    protocol: Literal["dinov2"] = "dinov2"
    """DINOv2's (Oquab et al. 2023): the classifier of `rsa-eval logistic`, unchanged; corruptions
    are averaged as by Hendrycks & Dietterich 2019."""
    shifts: ShiftFolders = ShiftFolders()

    @model_validator(mode="after")
    def _check_shifts(self) -> Self:
        if self.multi_label is not None:
            raise ValueError("robustness is of images with one class each; leave out multi_label")
        usable = shifts_of(self.data.name)
        if self.shifts.generate and self.data.image_size < _SMALLEST_CORRUPTED:
            raise ValueError(
                f"shifts.generate needs data.image_size of {_SMALLEST_CORRUPTED} or more, found "
                f"{self.data.image_size}"
            )
        if not usable and not self.shifts.generate:
            known = sorted({name for shift in SHIFTS for name in shift.data_sets})
            raise ValueError(
                f"there are no published shifted images of '{self.data.name}'; set "
                f"shifts.generate=true, or use one of {', '.join(known)}"
            )
        for shift in SHIFTS:
            if shift not in usable and getattr(self.shifts, shift.name) is not None:
                raise ValueError(
                    f"shifts.{shift.name} belongs to {' or '.join(shift.data_sets)}, not to "
                    f"'{self.data.name}'"
                )
        return self
