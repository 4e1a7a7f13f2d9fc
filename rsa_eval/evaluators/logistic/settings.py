"""Settings of logistic regression on frozen features."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.evaluators.shared.multi_label_settings import WithMultiLabel
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_pretrain.plumbing.config.files import Section


class SearchConfig(Section):
    """Search for the regularisation strength C; the defaults are DINOv2's."""

    min_exponent: float = -6.0
    """The smallest C is 10 to this power; a smaller C regularises more."""
    max_exponent: float = 5.0
    """The largest C is 10 to this power."""
    num_values: Annotated[int, Field(ge=1)] = 45
    """Values of C, evenly spaced on a logarithmic scale."""
    held_out_percent: Annotated[float, Field(gt=0, lt=100)] = 10.0
    """Percentage of each training class held out to choose C."""
    max_iterations: Annotated[int, Field(ge=1)] = 1000
    """Most L-BFGS iterations per fit."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-7
    """A fit has converged when it is estimated to be this near the minimum of its objective,
    relative to the objective or, if that is less, to what the weights have lowered it by."""

    @property
    def strengths(self) -> list[float]:
        """The values of C, in increasing order."""
        import numpy as np

        exponents = np.linspace(self.min_exponent, self.max_exponent, self.num_values)
        return [float(value) for value in 10.0**exponents]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_exponent > self.max_exponent:
            raise ValueError(
                f"min_exponent {self.min_exponent:g} is above max_exponent {self.max_exponent:g}"
            )
        return self


class LogisticOptions(Section):
    """The search and the fit, on features of any origin."""

    protocol: Literal["dinov2", "kornblith", "ridge"] = "dinov2"
    """dinov2 (Oquab et al. 2023): raw features, C chosen on a tenth of the training images, then
    a refit on all of them. kornblith (Kornblith et al. 2019): the same, C chosen on the data set's
    published validation images where it has some. ridge: ridge regression on the classes in closed
    form, C chosen by leaving out one image at a time; a first look in seconds. The best C has the
    highest top-1, or mean over the classes where that is the data set's usual metric."""
    search: SearchConfig = SearchConfig()


class LogisticConfig(LogisticOptions, WithMultiLabel):
    """Logistic regression on features extracted once.

    Of a multi-label data set, each class has a sigmoid output, or by protocol=ridge targets of 1
    and -1; one C serves all classes and is chosen by the mean of their average precisions at eleven
    points.
    """

    @model_validator(mode="after")
    def _check_multi_label(self) -> Self:
        if self.multi_label is None:
            return self
        if self.multi_label.val_split is not None and self.protocol != "kornblith":
            raise ValueError(
                f"multi_label.val_split needs protocol=kornblith, found '{self.protocol}', which "
                "chooses C on other images"
            )
        return self


class GivenLogisticConfig(LogisticOptions, GivenFeaturesConfig):
    """The same on given features."""
