"""Settings of low-shot classification."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_pretrain.data.settings import Seed
from rsa_pretrain.plumbing.config.files import Section


class ClassifierConfig(Section):
    """Logistic regression without intercepts; C is fixed, as few labels leave none for a search."""

    c: Annotated[float, Field(gt=0)] = 400.0
    """Weight of the loss against |W|² / 2: MSN's lambda of 0.0025 is its reciprocal."""
    max_iterations: Annotated[int, Field(ge=1)] = 1000
    """Most L-BFGS iterations per fit."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-7
    """A fit has converged when it is estimated to be this near the minimum of its objective,
    relative to the objective or, if that is less, to what the weights have lowered it by."""


SUBSETS = (
    Subset(percent=1),
    Subset(percent=10),
    Subset(per_class=1),
    Subset(per_class=2),
    Subset(per_class=5),
)


class LowShotOptions(Section):
    """The draws and the classifier, on features of any origin."""

    protocol: Literal["msn"] = "msn"
    """MSN's (Assran et al. 2022): each image's features minus their mean, divided by their norm."""
    subsets: Annotated[tuple[Subset, ...], Field(min_length=1)] = SUBSETS
    """Subsets of the labels to train on, one metric each; the first is the headline."""
    subset_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """One draw of each subset per seed; metrics are means over the draws. A list, and 100 percent,
    are used once."""
    classifier: ClassifierConfig = ClassifierConfig()

    @model_validator(mode="after")
    def _check_subsets(self) -> Self:
        names = [subset.name for subset in self.subsets]
        for what, entries in (("subsets", names), ("subset_seeds", list(self.subset_seeds))):
            if len(set(entries)) < len(entries):
                raise ValueError(f"{what} must differ, found {entries}")
        return self


class LowShotConfig(LowShotOptions, EvaluationConfig):
    """Logistic regression on the features of few labelled images."""


class GivenLowShotConfig(LowShotOptions, GivenFeaturesConfig):
    """The same on given features."""
