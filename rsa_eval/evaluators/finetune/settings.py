"""Settings of fine-tuning and of its published protocols."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.shared.settings import Subset, TrainingOnViews
from rsa_pretrain.data.settings import Seed


class TuningConfig(TrainingOnViews):
    """Joint training of backbone and head; the defaults are SwAV's for 10 % of the labels."""

    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the labelled images."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Largest batch over all processes; the batches of an epoch differ by at most one image."""
    backbone_base_lr: Annotated[float, Field(ge=0)] = 0.01
    """Learning rate of the backbone for a batch of 256; lr = base_lr * batch_size / 256."""
    head_base_lr: Annotated[float, Field(gt=0)] = 0.2
    """Learning rate of the new linear layer for a batch of 256."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (12, 16)
    """Epochs at whose start both learning rates are multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Factor applied at each milestone."""
    sync_batchnorm: bool = True
    """Synchronise BatchNorm statistics across GPUs; CPU processes keep separate statistics."""


@dataclass(frozen=True)
class FinetuneProtocol:
    """A published fine-tuning protocol."""

    tuning: TuningConfig
    subset: Subset


# SwAV's semi-supervised fine-tuning (Caron et al. 2020, Section 4.1), rates as in its release.
FINETUNE_PROTOCOLS = {
    "swav_10pct": FinetuneProtocol(TuningConfig(), Subset(percent=10)),
    "swav_1pct": FinetuneProtocol(
        TuningConfig(backbone_base_lr=0.02, head_base_lr=5.0), Subset(percent=1)
    ),
}


class FinetuneConfig(EvaluationConfig):
    """Supervised fine-tuning of the whole network; its features are never cached."""

    protocol: Literal["swav_10pct", "swav_1pct"] = "swav_10pct"
    """The published protocol this run follows: it sets the defaults of `tuning` and `subset`, and
    the record lists departures from it."""
    subset: Subset | None = Subset(percent=10)
    """Training images whose labels are used; null: all."""
    subset_seed: Seed = 0
    """Decides which images are drawn."""
    tuning: TuningConfig = TuningConfig()
    """Changes to the protocol's settings."""
    save_every_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between saves of the training state; rerun the command to resume."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_protocol(cls, tree: Any) -> Any:
        """Merge the given settings over the protocol's."""
        published = FINETUNE_PROTOCOLS.get(str(tree.get("protocol", "swav_10pct")))
        changes = tree.get("tuning", {})
        if published is None or not isinstance(changes, dict):
            return tree  # field validation reports the mistake
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
