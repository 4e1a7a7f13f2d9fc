"""Settings of the robustness of a trained classifier."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.finetune.settings import FinetuneConfig, FinetuneOptions
from rsa_eval.evaluators.linear.settings import LinearConfig, LinearOptions
from rsa_eval.evaluators.logistic.settings import LogisticConfig, LogisticOptions
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


class LogisticHead(LogisticOptions):
    """The classifier of `rsa-eval logistic`."""

    name: Literal["logistic"] = "logistic"
    """logistic, linear or finetune: the evaluator whose classifier is tested. The other settings of
    the section are its own."""
    protocol: Literal["dinov2", "kornblith"] = "dinov2"
    """dinov2 (Oquab et al. 2023): C chosen on a tenth of the training images; kornblith (Kornblith
    et al. 2019): on the published validation images where there are some."""


class LinearHead(LinearOptions):
    """The classifier of `rsa-eval linear`."""

    name: Literal["linear"]
    """logistic, linear or finetune: the evaluator whose classifier is tested. The other settings of
    the section are its own."""


class FinetuneHead(FinetuneOptions):
    """The network of `rsa-eval finetune`."""

    name: Literal["finetune"]
    """logistic, linear or finetune: the evaluator whose classifier is tested. The other settings of
    the section are its own."""


def _named(given: Any) -> Any:
    """Return the section with the name of the default head where it has none."""
    return {"name": "logistic", **given} if isinstance(given, dict) else given


HeadConfig = Annotated[
    LogisticHead | LinearHead | FinetuneHead,
    Field(discriminator="name"),
    BeforeValidator(_named),
]

_EVALUATIONS: dict[str, type[LogisticConfig | LinearConfig | FinetuneConfig]] = {
    "logistic": LogisticConfig,
    "linear": LinearConfig,
    "finetune": FinetuneConfig,
}


class RobustnessConfig(EvaluationConfig):
    """A classifier, trained as by its own evaluator and tested on shifted images, too."""

    protocol: Literal["hendrycks"] = "hendrycks"
    """Hendrycks & Dietterich 2019, who average over corruptions and severities; the classifier
    follows `head.protocol`, by which records name the evaluation."""
    head: HeadConfig = LogisticHead()
    """The classifier; by default that of `rsa-eval logistic`."""
    save_every_minutes: Annotated[float, Field(ge=0)] = 5.0
    """linear, finetune: minutes between saves of the training state; rerun the command to
    resume."""
    shifts: ShiftFolders = ShiftFolders()

    @property
    def recorded_protocol(self) -> str:
        """The head and its protocol."""
        return f"{self.head.name}_{self.head.protocol}"

    def head_evaluation(self) -> LogisticConfig | LinearConfig | FinetuneConfig:
        """Return the settings with which the head's own evaluator would train it."""
        kind = _EVALUATIONS[self.head.name]
        shared = {key: value for key, value in self if key in kind.model_fields}
        return kind(**shared | {key: value for key, value in self.head if key != "name"})

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        try:
            self.head_evaluation()
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    @model_validator(mode="after")
    def _check_shifts(self) -> Self:
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
