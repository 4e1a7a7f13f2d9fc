"""Settings of the nearest-neighbour vote."""

from typing import Annotated, Literal

from pydantic import Field

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_pretrain.plumbing.config.files import Section


class KNNSetting(Section):
    """One vote: the number of neighbours and their weights."""

    k: Annotated[int, Field(ge=1)]
    """Neighbours that vote; the whole bank if it is smaller."""
    temperature: Annotated[float, Field(gt=0)] | None
    """T: a neighbour of cosine similarity s has weight exp(s / T); null: each has weight 1."""

    @property
    def label(self) -> str:
        """The setting as results name it."""
        weight = "unweighted" if self.temperature is None else f"T={self.temperature:g}"
        return f"k={self.k}, {weight}"


# The vote of the RSA paper's release; then DINO's and Mean Shift's.
PAPER_VOTE = KNNSetting(k=200, temperature=0.1)
_OTHER_VOTES = (
    *(KNNSetting(k=k, temperature=0.07) for k in (10, 20, 100, 200)),
    *(KNNSetting(k=k, temperature=None) for k in (1, 20)),
)
VOTES = (PAPER_VOTE, *_OTHER_VOTES)


class KNNOptions(Section):
    """The votes, on features of any origin."""

    protocol: Literal["weighted_vote"] = "weighted_vote"
    """InstDis's vote."""
    settings: Annotated[tuple[KNNSetting, ...], Field(min_length=1)] = VOTES
    """Votes to count, all in one pass; the first is the headline."""
    memory_budget_mib: Annotated[int, Field(ge=16)] | None = None
    """Memory for the comparison beside the features, in MiB, whatever the number of images.
    null: 512 on a CPU (less if that is over a quarter of what is free), a quarter of its free
    memory on a GPU."""


class KNNConfig(KNNOptions, EvaluationConfig):
    """Classification of test images by their nearest training images."""

    leave_one_out: bool = False
    """Classify each training image by the others, instead of the test images."""


class GivenKNNConfig(KNNOptions, GivenFeaturesConfig):
    """The same of given features."""
