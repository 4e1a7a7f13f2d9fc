"""Settings of fine-tuning, and the published protocols as such settings."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.shared.settings import Subset, TrainingOnViews
from rsa_pretrain.data.settings import Seed


class TuningConfig(TrainingOnViews):
    """How backbone and head are trained together; the defaults are SwAV's for a tenth of labels."""

    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the labelled images."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Most images per step, over all processes; an epoch's steps are equal up to one image."""
    backbone_base_lr: Annotated[float, Field(ge=0)] = 0.01
    """Learning rate of the backbone for a batch of 256; lr = base_lr * batch_size / 256."""
    head_base_lr: Annotated[float, Field(gt=0)] = 0.2
    """The same for the new linear layer."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (12, 16)
    """Epochs at whose start both rates are multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Factor of the milestones."""
    sync_batchnorm: bool = True
    """Share BatchNorm statistics between GPUs; processes on CPUs keep their own."""


@dataclass(frozen=True)
class Protocol:
    """A published way to fine-tune."""

    tuning: TuningConfig
    subset: Subset


# SwAV's semi-supervised fine-tuning (Caron et al. 2020, Section 4.1), rates as in its release.
FINETUNE_PROTOCOLS = {
    "swav_10pct": Protocol(TuningConfig(), Subset(percent=10)),
    "swav_1pct": Protocol(TuningConfig(backbone_base_lr=0.02, head_base_lr=5.0), Subset(percent=1)),
}


class FinetuneConfig(EvaluationConfig):
    """The whole network, trained on labels; its features are its own and not kept in a cache."""

    protocol: Literal["swav_10pct", "swav_1pct"] = "swav_10pct"
    """The published protocol this run follows: it decides the defaults of `tuning` and `subset`,
    and departures from it are listed in the record."""
    subset: Subset | None = Subset(percent=10)
    """Which training images have labels; null: all."""
    subset_seed: Seed = 0
    """Decides which images are drawn."""
    tuning: TuningConfig = TuningConfig()
    """The protocol's settings, and what is changed of them."""
    save_every_minutes: Annotated[float, Field(ge=0)] = 5.0
    """How often the training's state is saved, for the same command to go on from."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_protocol(cls, tree: Any) -> Any:
        """Let the settings change those of the protocol."""
        published = FINETUNE_PROTOCOLS.get(str(tree.get("protocol", "swav_10pct")))
        changes = tree.get("tuning", {})
        if published is None or not isinstance(changes, dict):
            return tree  # what is wrong is said by the checks of the fields
        started = {"subset": published.subset.model_dump()} | tree
        return started | {"tuning": published.tuning.model_dump() | changes}

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        if self.layers != ("layer4",) or self.feature_dtype != "fp32":
            raise ValueError(
                "fine-tuning trains the whole backbone below one head; leave out layers and "
                "feature_dtype"
            )
        return self
