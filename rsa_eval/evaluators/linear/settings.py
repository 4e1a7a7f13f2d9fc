"""Settings of the linear probe and of its published protocols."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.shared.settings import TrainingOnViews
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_pretrain.plumbing.config.files import Section


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) else value


class ProbeConfig(TrainingOnViews):
    """Training of a linear classifier; the defaults are the protocol moco_v2."""

    mode: Literal["online", "cached"] = "online"
    """online: fresh augmentation each epoch, as in the papers; cached: the features of the
    training images under the evaluation transform, extracted once."""
    views: Literal["pillow", "batched"] = "pillow"
    """Online: how the crops and flips are made. pillow: image by image in the loader processes;
    batched: whole batches on the device, of sets of small images, which are kept in its memory. The
    views are the same in distribution, the draws are not."""
    epochs: Annotated[int, Field(ge=1)] = 100
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Batch size over all processes; the last batch of an epoch may be smaller."""
    base_lr: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1), BeforeValidator(_as_list)
    ] = (30.0,)
    """Learning rate for a batch of 256, lr = base_lr * batch_size / 256; or a list of rates, one
    per classifier (head), all trained in one pass over the data."""
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """With several rates: share of each class's training images held out from training, at most
    all but one; the head most accurate on them is tested."""
    optimizer: Literal["sgd", "lars"] = "sgd"
    """lars adapts the rates of weights and biases alike, as SimSiam's code does."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the optimizer."""
    nesterov: bool = False
    """Nesterov momentum, as in the RSA paper's release."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty."""
    trust_coefficient: Annotated[float, Field(gt=0)] = 0.001
    """lars: step length relative to the tensor's norm."""
    schedule: Literal["milestones", "cosine_by_epoch", "cosine_by_step"] = "milestones"
    """Learning-rate decay: at the milestones, or along half a cosine to 0."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (60, 80)
    """Epochs at whose start the learning rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor applied at each milestone."""
    standardise: bool = False
    """Divide features by their L2 norm, then standardise each dimension by the mean and standard
    deviation of the training images' features under the evaluation transform."""
    init_std: Annotated[float, Field(ge=0)] | None = 0.01
    """Standard deviation of the initial weights, with biases at 0; null: torch's default
    initialisation of a linear layer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.milestones and self.schedule != "milestones":
            raise ValueError(
                f"schedule {self.schedule} has no milestones, found {list(self.milestones)}; "
                "set milestones=[]"
            )
        if self.nesterov and self.sgd_momentum == 0:
            raise ValueError("nesterov needs sgd_momentum above 0, found 0; set either")
        if self.views == "batched" and self.mode == "cached":
            raise ValueError(
                "mode cached augments no images, found views batched; set views=pillow or "
                "mode=online"
            )
        return self


LINEAR_PROTOCOLS = {
    # MoCo v2 (Chen et al. 2020), which the RSA paper follows on small and medium data sets.
    "moco_v2": ProbeConfig(),
    # Mean Shift (Koohpayegani et al. 2021), which the RSA paper follows on large data sets. Its
    # third milestone, 40, is the end of training and has no effect.
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
    # only; 12,500 steps of 1,024 images are ten epochs of ImageNet. The paper's Appendix B.3 lists
    # rates from 1e-4 to 0.5. deviations.py lists further differences from the code.
    "dinov2": ProbeConfig(
        epochs=10,
        batch_size=1024,
        base_lr=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
        schedule="cosine_by_step",
        milestones=(),
    ),
}


class LinearOptions(Section):
    """The probe, on features of any origin."""

    changes: ClassVar[dict[str, Any]] = {}
    """Changes to every protocol's probe."""
    protocol: Literal["moco_v2", "mean_shift", "simsiam", "dinov2"] = "moco_v2"
    """The published protocol this run follows: it sets the defaults of the probe, and the record
    lists departures from it."""
    probe: ProbeConfig = ProbeConfig()
    """Changes to the protocol's settings."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_protocol(cls, tree: Any) -> Any:
        """Merge the given settings over the protocol's."""
        published = LINEAR_PROTOCOLS.get(str(tree.get("protocol", "moco_v2")))
        changes = tree.get("probe", {})
        if published is None or not isinstance(changes, dict):
            return tree  # field validation reports the mistake
        return {**tree, "probe": published.model_dump() | cls.changes | changes}


class LinearConfig(LinearOptions, EvaluationConfig):
    """A linear classifier on frozen features."""

    stl10_folds: bool = False
    """stl10: train a probe on each of the ten predefined folds of 1,000 training images and report
    the mean and sample standard deviation of their accuracies."""
    save_every_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between saves of the training state; rerun the command to resume."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        resize = self.data.eval_interpolation
        if self.probe.views == "batched" and resize != "bilinear":
            raise ValueError(
                f"probe.views batched resizes bilinearly, found data.eval_interpolation {resize}; "
                "set probe.views=pillow or data.eval_interpolation=bilinear"
            )
        if self.stl10_folds and self.data.name != "stl10":
            raise ValueError(f"stl10_folds belongs to 'stl10', not to '{self.data.name}'")
        if self.stl10_folds and self.data.stl10_fold is not None:
            raise ValueError("stl10_folds trains on each fold; leave data.stl10_fold out")
        return self


class GivenLinearConfig(LinearOptions, GivenFeaturesConfig):
    """The same on given features, each the same in every epoch."""

    changes: ClassVar[dict[str, Any]] = {"mode": "cached"}

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.probe.mode != "cached":
            raise ValueError(
                f"probe.mode {self.probe.mode} augments images, which given features lack; leave "
                "it out"
            )
        return self
