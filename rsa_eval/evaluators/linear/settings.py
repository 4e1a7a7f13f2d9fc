"""Settings of the linear probe, and the published protocols as such settings."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.shared.settings import TrainingOnViews


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) else value


class ProbeConfig(TrainingOnViews):
    """How a linear classifier is trained; the defaults are the protocol moco_v2."""

    mode: Literal["online", "cached"] = "online"
    """online: fresh augmentation each epoch, as in the papers; cached: the features of the
    training images under the evaluation transform, extracted once."""
    epochs: Annotated[int, Field(ge=1)] = 100
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images per step over all processes; the last batch of an epoch may be smaller."""
    base_lr: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_as_list)
    ] = (30.0,)
    """Learning rate for a batch of 256, lr = base_lr * batch_size / 256; or a list of them, each
    for a classifier (head) of its own, all trained in one pass over the data."""
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """With several rates: share of each class of the training images that no head is trained on,
    at most all but one; the head most accurate on them is the one that is tested."""
    optimizer: Literal["sgd", "lars"] = "sgd"
    """lars adapts weights and biases alike, as SimSiam's code does."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the optimizer."""
    nesterov: bool = False
    """Nesterov's momentum, which the RSA paper's release uses."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty."""
    trust_coefficient: Annotated[float, Field(gt=0)] = 0.001
    """lars: step length relative to the tensor's norm."""
    schedule: Literal["milestones", "cosine_by_epoch", "cosine_by_step"] = "milestones"
    """How the rate falls: at the milestones, or along half a cosine to 0."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (60, 80)
    """Epochs at whose start the rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of the milestones."""
    standardise: bool = False
    """Divide features by their L2 norm, then each dimension by its standard deviation, the mean
    subtracted; both are those of the training images under the evaluation transform."""
    init_std: Annotated[float, Field(ge=0)] | None = 0.01
    """Standard deviation of the initial weights, the biases starting at 0; null: weights and
    biases as torch initialises a linear layer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.milestones and self.schedule != "milestones":
            raise ValueError(
                f"schedule {self.schedule} has no milestones, found {list(self.milestones)}; "
                "set milestones=[]"
            )
        if self.nesterov and self.sgd_momentum == 0:
            raise ValueError("nesterov needs sgd_momentum above 0")
        return self


LINEAR_PROTOCOLS = {
    # MoCo v2 (Chen et al. 2020), which the RSA paper follows on small and medium data sets.
    "moco_v2": ProbeConfig(),
    # Mean Shift (Koohpayegani et al. 2021), which the RSA paper follows on large data sets. Its
    # third milestone, 40, lies at the end and never acts.
    "mean_shift": ProbeConfig(
        epochs=40,
        base_lr=(0.01,),
        weight_decay=1e-4,
        milestones=(15, 30),
        standardise=True,
        init_std=None,
    ),
    # SimSiam (Chen and He 2021): the defaults of its main_lincls.py, which steps the cosine once an
    # epoch. The paper's own rate is 0.02.
    "simsiam": ProbeConfig(
        epochs=90,
        batch_size=4096,
        base_lr=(0.1,),
        optimizer="lars",
        schedule="cosine_by_epoch",
        milestones=(),
    ),
    # DINOv2 (Oquab et al. 2023): the defaults of its dinov2/eval/linear.py, on the last features
    # alone; 12,500 steps of 1,024 images are ten epochs of ImageNet. The paper's Appendix B.3 lists
    # rates from 1e-4 to 0.5. protocols.py lists what else differs from the code.
    "dinov2": ProbeConfig(
        epochs=10,
        batch_size=1024,
        base_lr=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
        schedule="cosine_by_step",
        milestones=(),
    ),
}


class LinearConfig(EvaluationConfig):
    """A linear classifier on frozen features."""

    protocol: Literal["moco_v2", "mean_shift", "simsiam", "dinov2"] = "moco_v2"
    """The published protocol this run follows: it decides the defaults of the probe, and
    departures from it are listed in the record."""
    probe: ProbeConfig = ProbeConfig()
    """The protocol's settings, and what is changed of them."""
    stl10_folds: bool = False
    """stl10: train a probe on each of the ten predefined folds of 1,000 training images and give
    the mean and the sample standard deviation of their accuracies."""
    save_every_minutes: Annotated[float, Field(ge=0)] = 5.0
    """How often the training's state is saved, for the same command to go on from."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_protocol(cls, tree: Any) -> Any:
        """Let the settings change those of the protocol."""
        published = LINEAR_PROTOCOLS.get(str(tree.get("protocol", "moco_v2")))
        changes = tree.get("probe", {})
        if published is None or not isinstance(changes, dict):
            return tree  # what is wrong is said by the checks of the fields
        return {**tree, "probe": published.model_dump() | changes}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stl10_folds and self.data.name != "stl10":
            raise ValueError(f"stl10_folds belongs to 'stl10', not to '{self.data.name}'")
        if self.stl10_folds and self.data.stl10_fold is not None:
            raise ValueError("stl10_folds trains on each fold; leave data.stl10_fold out")
        return self
