"""Settings of feature extraction."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rsa_eval.config import EvaluationConfig
from rsa_pretrain.data.sets import Split


class FeaturesConfig(EvaluationConfig):
    """Extraction of features into a cache."""

    protocol: Literal["frozen_features"] = "frozen_features"
    """The backbone in eval mode, the images under the evaluation transform."""
    splits: Annotated[tuple[Split, ...], Field(min_length=1)] = ("train", "test")
    """Splits to extract."""
    cache_dir: Path
    """Folder that caches the features; evaluations with the same settings read them from there.
    All processes must see it."""
