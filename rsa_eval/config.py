"""What one evaluation consists of: every setting, its default and its meaning."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_pretrain.config import BackboneConfig, Range, WeakConfig
from rsa_pretrain.config_files import Section
from rsa_pretrain.data_config import DataConfig, Probability
from rsa_pretrain.device import Precision


class RandomBackboneConfig(BackboneConfig):
    """The network of --random-init."""

    zero_init_residual: bool = False
    """Start each residual branch at zero. Pretraining does; but left untrained, such a network
    sees little more than every 32nd pixel, a baseline that is too easily beaten."""


class EvaluationConfig(Section):
    """What every evaluator needs: images, network and machine."""

    data: DataConfig
    backbone: RandomBackboneConfig | None = None
    """Network of --random-init; a checkpoint names its own, and this must agree with it."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds a random backbone, and a probe's initialisation, data order and augmentation."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images per forward pass where features are extracted."""
    precision: Precision = "fp32"
    """Autocast type of the backbone; features are kept, and classified, in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""


class KNNSetting(Section):
    """One vote: how many neighbours, and how much each of them counts."""

    k: Annotated[int, Field(ge=1)]
    """Neighbours that vote; a smaller bank votes as a whole."""
    temperature: Annotated[float, Field(gt=0)] | None
    """A neighbour of cosine similarity s counts exp(s / T); null: each counts one."""

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


class KNNConfig(EvaluationConfig):
    """Nearest neighbours of the test images among the training images."""

    protocol: Literal["weighted_vote"] = "weighted_vote"
    """InstDis's vote."""
    settings: Annotated[tuple[KNNSetting, ...], Field(min_length=1)] = (PAPER_VOTE, *_OTHER_VOTES)
    """The votes, all counted in one pass; the first is the headline."""
    chunk_size: Annotated[int, Field(ge=1)] = 1024
    """Test images compared with the whole bank at a time; bounds the memory."""


class ProbeConfig(Section):
    """How a linear classifier is trained; the defaults are the protocol moco_v2."""

    mode: Literal["online", "cached"] = "online"
    """online: fresh augmentation each epoch, as in the papers; cached: the features of the
    training images under the evaluation transform, extracted once."""
    epochs: Annotated[int, Field(ge=1)] = 100
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images per step; the last batch of an epoch may be smaller."""
    base_lr: Annotated[float, Field(gt=0)] = 30.0
    """Learning rate for a batch of 256; lr = base_lr * batch_size / 256."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    nesterov: bool = False
    """Nesterov's momentum, which the RSA paper's release uses."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (60, 80)
    """Epochs at whose start the rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of the milestones."""
    init_std: Annotated[float, Field(ge=0)] = 0.01
    """Standard deviation of the initial weights; the biases start at 0."""
    crop_scale: Range = (0.08, 1.0)
    """online: area of the random resized crop as a share of the image (MoCo's lincls)."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """online: aspect ratio of the crop, width over height."""
    flip_probability: Probability = 0.5
    """online: horizontal flip."""

    @property
    def lr(self) -> float:
        """The learning rate before the first milestone."""
        return self.base_lr * self.batch_size / 256

    @property
    def train_view(self) -> WeakConfig:
        """The augmentation of online mode."""
        return WeakConfig(
            crop_scale=self.crop_scale,
            crop_ratio=self.crop_ratio,
            flip_probability=self.flip_probability,
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, found {list(self.milestones)}")
        if self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"milestones {list(self.milestones)} must lie below epochs {self.epochs}; set both"
            )
        if self.nesterov and self.sgd_momentum == 0:
            raise ValueError("nesterov needs sgd_momentum above 0")
        _ = self.train_view  # checks the ranges
        return self


class LinearConfig(EvaluationConfig):
    """A linear classifier on frozen features."""

    protocol: Literal["moco_v2"] = "moco_v2"
    """The published protocol this run follows; departures from it are listed in the record."""
    probe: ProbeConfig = ProbeConfig()
