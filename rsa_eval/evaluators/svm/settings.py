"""Settings of linear support vector machines on frozen features."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.evaluators.shared.multi_label_settings import WithMultiLabel
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_pretrain.plumbing.config.files import Section


class MachineConfig(Section):
    """One machine per class, squared hinge loss; the defaults are Goyal et al.'s."""

    costs: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        *(0.5**power for power in range(19, 6, -1)),
        0.01,
        *(0.5**power for power in (6, 5, 4)),
        0.1,
    )
    """Values of C to try, in increasing order; one is chosen per class."""
    folds: Annotated[int, Field(ge=2)] = 3
    """Cross-validation folds of the training images, for choosing C."""
    positive_weight: Annotated[float, Field(gt=0)] = 2.0
    """Weight of a positive image's loss; that of a negative one is 1."""
    max_iterations: Annotated[int, Field(ge=1)] = 2000
    """Most liblinear iterations per fit."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """liblinear's tolerance of the dual problem."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.costs) != sorted(set(self.costs)):
            raise ValueError(f"costs must increase, found {list(self.costs)}")
        return self


class SVMOptions(Section):
    """The machines, on features of any origin."""

    protocol: Literal["goyal2019"] = "goyal2019"
    """Goyal et al. 2019's on VOC2007, with only the averaged features of the last stage, as later
    papers report it; features are divided by their norm plus 1e-5."""
    machine: MachineConfig = MachineConfig()


class SVMConfig(SVMOptions, WithMultiLabel):
    """Linear support vector machines, one per class, scored by average precision.

    Of images with one class each, each class is ranked against the rest.
    """

    @model_validator(mode="after")
    def _check_multi_label(self) -> Self:
        if self.multi_label is not None and self.multi_label.val_split is not None:
            raise ValueError(
                "multi_label.val_split has no meaning for svm, which chooses costs by "
                "cross-validation; leave it out"
            )
        return self


class GivenSVMConfig(SVMOptions, GivenFeaturesConfig):
    """The same on given features, each class against the rest."""
