"""Settings of the diagnostics."""

from typing import Annotated, Literal

from pydantic import Field

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_pretrain.data.sets import Split
from rsa_pretrain.data.settings import UserPathText
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.views.settings import ViewsConfig

RANKME_NUM_IMAGES = 25_600
"""Images over which Garrido et al. 2023 compute the rank."""


class EmbeddingConfig(Section):
    """The two-dimensional plot of the features."""

    method: Literal["tsne", "pca"] = "tsne"
    """tsne (van der Maaten & Hinton 2008) keeps neighbourhoods; pca is linear and fast."""
    num_images: Annotated[int, Field(ge=4)] = 2000
    """Images drawn at random; all if there are fewer."""
    perplexity: Annotated[float, Field(gt=0)] = 30.0
    """tsne: effective number of neighbours; at most a third of the other images."""


class DiagnosticsOptions(Section):
    """The measures that need features alone."""

    protocol: Literal["test_features"] = "test_features"
    """Published measures without labels, such as RankMe, on the backbone's features."""
    num_images: Annotated[int, Field(ge=2)] = RANKME_NUM_IMAGES
    """Images, drawn at random, over which RankMe, alpha-ReQ, the standard deviation, the uniformity
    and CKA are computed; all if there are fewer."""
    vote: KNNSetting = KNNSetting(k=20, temperature=0.07)
    """The nearest-neighbour vote whose mistakes the confusion matrix counts."""
    memory_budget_mib: Annotated[int, Field(ge=16)] | None = None
    """Memory for the neighbour search beside the features, in MiB. null: 512 on a CPU (less if that
    is over a quarter of what is free), a quarter of its free memory on a GPU."""


class DiagnosticsConfig(DiagnosticsOptions, EvaluationConfig):
    """Measures and plots of the features of the test or training images."""

    split: Split = "test"
    """Images to analyse; train compares each training image with all others, for data sets
    without test images."""
    num_view_images: Annotated[int, Field(ge=1)] = 2500
    """Images, drawn at random, whose augmented views the alignment and LiDAR compare; all if there
    are fewer. LiDAR should have more images than features, of which a ResNet-50 has 2,048."""
    num_views: Annotated[int, Field(ge=2, le=1000, multiple_of=2)] = 10
    """Aggressive views of each of them for LiDAR, an even number; the alignment compares two. All
    their features are kept in memory."""
    views: ViewsConfig = ViewsConfig()
    """Augmentations of the weak and aggressive views."""
    compare_to: UserPathText | None = None
    """Another checkpoint, or a network of another library such as timm:NAME@FILE: CKA compares the
    two networks' features of the same images. null: no CKA."""
    num_queries: Annotated[int, Field(ge=1, le=100)] = 12
    """Images, drawn at random, on the retrieval page; the plot shows the first 8."""
    num_neighbours: Annotated[int, Field(ge=1, le=10)] = 10
    """Training images shown beside each of them."""
    embedding: EmbeddingConfig = EmbeddingConfig()


class GivenDiagnosticsConfig(DiagnosticsOptions, GivenFeaturesConfig):
    """The measures of given test features; alignment, LiDAR, CKA and plots need images."""
