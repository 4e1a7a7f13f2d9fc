"""Settings of the linear probe."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_pretrain.config import Range, WeakConfig
from rsa_pretrain.config_files import Section
from rsa_pretrain.data_config import Probability


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
