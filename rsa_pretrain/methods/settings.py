"""Define the settings of each pretraining method."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rsa_pretrain.components.schedules import cosine, rsa_beta
from rsa_pretrain.data.settings import Probability
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.views.settings import ViewSet

Width = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(gt=0)]


class ScheduledSection(Section):
    """Settings of a method, some of which may change over the run."""

    def scheduled(self, progress: float) -> dict[str, float]:
        """Return the values of the method's schedules at a share of the run, in [0, 1]."""
        return {}


class RSAConfig(ScheduledSection):
    """RSA: Bai et al. 2022."""

    view_set: ClassVar[ViewSet] = "multi_stage"

    name: Literal["rsa"]
    """The method."""
    hidden_dim: Width
    """Width of the hidden layer of projector and predictor."""
    output_dim: Width
    """Width of their outputs."""
    ema_momentum: Probability = 0.99
    """Target's momentum tau at step 0; it rises to 1 by a cosine."""
    beta_base: Probability
    """Weight of the aggressive-aggressive pairs at step 0."""
    beta_mode: Literal["decay", "fixed"] = "decay"
    """decay: cosine from beta_base to 0, paper Eq. 6; fixed: beta_base throughout."""
    batch_views: bool = False
    """Send both views of a network through it at once, sharing their BatchNorm statistics;
    the paper's recipes use one forward per view."""

    def scheduled(self, progress: float) -> dict[str, float]:
        """Return beta and the target's momentum."""
        return {
            "beta": rsa_beta(self.beta_base, self.beta_mode, progress),
            "ema_momentum": cosine(self.ema_momentum, 1.0, progress),
        }


class BYOLConfig(ScheduledSection):
    """BYOL: Grill et al. 2020, symmetrised."""

    name: Literal["byol"]
    """The method."""
    views: Literal["AA", "AW"] = "AA"
    """AA: two aggressive views; AW: one aggressive and one weak (the paper's Table 1)."""
    hidden_dim: Width
    """Width of the hidden layer of projector and predictor."""
    output_dim: Width
    """Width of their outputs."""
    ema_momentum: Probability = 0.99
    """Target's momentum tau at step 0; it rises to 1 by a cosine."""

    @property
    def view_set(self) -> ViewSet:
        """The views that a step needs."""
        return "aggressive_pair" if self.views == "AA" else "aggressive_weak"

    def scheduled(self, progress: float) -> dict[str, float]:
        """Return the target's momentum."""
        return {"ema_momentum": cosine(self.ema_momentum, 1.0, progress)}


class SimSiamConfig(ScheduledSection):
    """SimSiam: Chen and He 2021."""

    view_set: ClassVar[ViewSet] = "aggressive_pair"

    name: Literal["simsiam"]
    """The method."""
    projector_layers: Literal[2, 3]
    """Linear layers of the projector: 3 on ImageNet, 2 on CIFAR (SimSiam's appendix D)."""
    projector_dim: Width = 2048
    """Width of the projector's layers and output."""
    predictor_hidden_dim: Width = 512
    """Width of the predictor's bottleneck."""


class SimSiamRSAConfig(ScheduledSection):
    """SimSiam with RSA's views and pairs: Bai et al. 2022, Section 4.7."""

    view_set: ClassVar[ViewSet] = "multi_stage"

    name: Literal["simsiam_rsa"]
    """The method."""
    projector_layers: Literal[2, 3]
    """Linear layers of the projector: 3 on ImageNet, 2 on CIFAR (SimSiam's appendix D)."""
    projector_dim: Width = 2048
    """Width of the projector's layers and output."""
    predictor_hidden_dim: Width = 512
    """Width of the predictor's bottleneck."""
    beta_base: Probability
    """Weight of the aggressive-aggressive pairs at step 0."""
    beta_mode: Literal["decay", "fixed"] = "decay"
    """decay: cosine from beta_base to 0, paper Eq. 6; fixed: beta_base throughout."""

    def scheduled(self, progress: float) -> dict[str, float]:
        """Return beta."""
        return {"beta": rsa_beta(self.beta_base, self.beta_mode, progress)}


class SimCLRConfig(ScheduledSection):
    """SimCLR: Chen et al. 2020."""

    view_set: ClassVar[ViewSet] = "aggressive_pair"

    name: Literal["simclr"]
    """The method."""
    hidden_dim: Width
    """Width of the projector's hidden layer; SimCLR uses the backbone's feature width."""
    output_dim: Width = 128
    """Width of the projections."""
    temperature: Temperature
    """Temperature of the softmax over similarities; SimCLR: 0.5 on CIFAR-10, 0.1 on ImageNet."""


class MoCoV2Config(ScheduledSection):
    """MoCo v2: Chen et al. 2020, with the symmetrised loss of SimSiam's comparison."""

    view_set: ClassVar[ViewSet] = "aggressive_pair"

    name: Literal["moco_v2"]
    """The method."""
    hidden_dim: Width
    """Width of the projector's hidden layer; MoCo v2 uses the backbone's feature width."""
    output_dim: Width = 128
    """Width of the projections."""
    temperature: Temperature = 0.2
    """Temperature of the softmax over similarities."""
    ema_momentum: Probability = 0.99
    """Momentum of the key network, constant; the paper's value for all experiments."""
    queue_size: Annotated[int, Field(ge=1)]
    """Negatives kept; each step adds two keys per image."""
    shuffle_bn: bool = True
    """Let each device compute keys of other devices' images, so that BatchNorm's statistics do
    not leak a query's key. One device has nothing to shuffle; SyncBatchNorm needs no shuffle."""

    def scheduled(self, progress: float) -> dict[str, float]:
        """Return the key network's momentum, which is constant."""
        return {"ema_momentum": self.ema_momentum}


class SupervisedConfig(ScheduledSection):
    """Cross-entropy on the labels, for the "supervised" rows."""

    view_set: ClassVar[ViewSet] = "weak"

    name: Literal["supervised"]
    """The method."""
    num_classes: Annotated[int, Field(ge=2)]
    """Classes of the data set."""


MethodConfig = Annotated[
    RSAConfig
    | BYOLConfig
    | SimSiamConfig
    | SimSiamRSAConfig
    | SimCLRConfig
    | MoCoV2Config
    | SupervisedConfig,
    Field(discriminator="name"),
]
