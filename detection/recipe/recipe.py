"""Define the engine-independent settings of a detection run: data, input, solver, schedule.

The defaults are those of Mask R-CNN R50-FPN 1x as the RSA paper used it (its reference [43],
InfoMin, with the paper's learning rates); a config file states only its differences.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from detection.coco.data_settings import CocoDataConfig, DetectionData, VocDataConfig
from detection.recipe.architecture import Count, ModelConfig, SamplingConfig, shallow_c4
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.plumbing.device_names import DeviceName, Precision

if TYPE_CHECKING:
    from fvcore.common.param_scheduler import ParamScheduler

EngineName = Literal["torchvision", "detectron2"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class InputConfig(Section):
    """Preparation of the images for the network."""

    train_short_sides_pixels: Annotated[tuple[Count, ...], Field(min_length=1)] = (
        *range(640, 801, 32),
    )
    """Multi-scale training: each image's short side becomes one of these."""
    test_short_side_pixels: Count = 800
    """Short side in testing."""
    max_side_pixels: Count = 1333
    """The long side never exceeds this; the short side gives way."""
    flip_probability: Fraction = 0.5
    """Horizontal flip in training."""


@dataclass(frozen=True)
class Schedule:
    """A solver's learning rate and lengths at its batch size."""

    lr: float
    iterations: int
    decay_at: tuple[int, ...]
    warmup_iterations: int


class SolverConfig(Section):
    """SGD with momentum; linear warm-up, then steps.

    Rate and lengths are stated for ``reference_batch_size`` images; ``schedule`` scales them to
    ``batch_size``: s times the rate and 1/s of every length, s = batch_size / reference_batch_size,
    rounded as detectron2's ``auto_scale_workers`` does.
    """

    base_lr: Annotated[float, Field(gt=0)] = 0.02
    """Learning rate at the reference batch size."""
    batch_size: Count = 16
    """Images per iteration, over all processes."""
    reference_batch_size: Count = 16
    """Batch size for which the rate and the lengths are stated."""
    iterations: Count = 90_000
    """Optimizer steps."""
    decay_at: tuple[Count, ...] = (60_000, 80_000)
    """Iterations at which the rate drops to a tenth."""
    warmup_iterations: Annotated[int, Field(ge=0)] = 1000
    """Length of the linear warm-up."""
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of the rate at which warm-up starts."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty, biases included."""
    norm_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty of the norms' weights and biases."""

    @property
    def schedule(self) -> Schedule:
        """Rate and lengths at ``batch_size``."""
        scale = self.batch_size / self.reference_batch_size
        return Schedule(
            lr=self.base_lr * scale,
            iterations=round(self.iterations / scale),
            decay_at=tuple(round(at / scale) for at in self.decay_at),
            warmup_iterations=round(self.warmup_iterations / scale),
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        scaled = self.schedule
        at_size = "" if self.batch_size == self.reference_batch_size else ", scaled to batch_size"
        ordered = sorted(set(scaled.decay_at))
        if list(scaled.decay_at) != ordered or any(at >= scaled.iterations for at in ordered):
            raise ValueError(
                f"decay_at must rise and stay below iterations {scaled.iterations}, "
                f"found {list(scaled.decay_at)}{at_size}"
            )
        if scaled.warmup_iterations >= scaled.iterations:
            raise ValueError(
                f"warmup_iterations {scaled.warmup_iterations} must be below "
                f"iterations {scaled.iterations}{at_size}; lower it or train longer"
            )
        return self


class DetectorTrainingConfig(Section):
    """The loop around the solver."""

    device: DeviceName = "auto"
    """auto takes a GPU where there is one."""
    precision: Precision = "fp32"
    """Autocast type of the forward passes; fp16 adds a gradient scaler and needs a GPU."""
    precise_bn_iterations: Count | None = 200
    """Training batches over which trainable BatchNorm statistics are re-estimated before each
    evaluation and at the end; null keeps the running averages."""
    evaluate_every_iterations: Count | None = None
    """Evaluate on test images during training, too; null: at the end alone, whose result counts."""
    checkpoint_every_iterations: Count = 5000
    """A checkpoint is also written at the end and when the run is stopped."""
    keep_checkpoints: Count | None = 3
    """Number of newest checkpoints to keep; null keeps all."""
    log_every_iterations: Count = 20
    """Iterations averaged into one line of metrics."""


class Recipe(Section):
    """One detection run."""

    name: str
    """Name of the protocol in results."""
    engine: EngineName = "torchvision"
    """Library that builds and trains the detector; detectron2 must be installed by hand."""
    output_dir: Path = Field(
        default_factory=lambda settings: Path("runs/detection", settings["name"])
    )
    """Run folder; it must be new, unless the run is resumed. Left out: runs/detection/NAME."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds initialisation, data order, augmentation and sampling."""
    data: DetectionData
    input: InputConfig = InputConfig()
    model: ModelConfig = ModelConfig()
    sampling: SamplingConfig = SamplingConfig()
    solver: SolverConfig = SolverConfig()
    training: DetectorTrainingConfig = DetectorTrainingConfig()

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        problem = shallow_c4(self.model.arch, self.model.features)
        if self.engine == "detectron2" and problem is not None:
            raise ValueError(problem)
        return self


# Files of a finished run folder, besides its log and checkpoints.
PREDICTIONS_FILE = "predictions.json"
RECORD_FILE = Path("records") / "detection.json"

# Changing one of these on --resume does not change the result.
DETECTOR_NEUTRAL_KEYS = frozenset(
    {
        *(f"data.{key}" for kind in (CocoDataConfig, VocDataConfig) for key in kind.PLACES),
        "output_dir",
        "data.num_workers",
        "data.max_megapixels",
        "training.device",
        "training.evaluate_every_iterations",
        "training.checkpoint_every_iterations",
        "training.keep_checkpoints",
        "training.log_every_iterations",
    }
)

# A detector of a row of the paper may be trained with other values of these, which its record
# notes: they change its speed and, slightly, its result. A run is not resumed with others.
DETECTOR_SPEED_SETTINGS = frozenset({"training.precision"})


def lr_schedule(solver: SolverConfig) -> "ParamScheduler":
    """Return the learning-rate factor as a function of progress, iteration / iterations.

    Warm-up rises linearly from ``warmup_factor`` to 1 and joins the steps, as in detectron2.
    """
    from fvcore.common.param_scheduler import (  # of the extra detect: settings do not need it
        CompositeParamScheduler,
        LinearParamScheduler,
        MultiStepParamScheduler,
    )

    schedule = solver.schedule
    steps = MultiStepParamScheduler(
        values=[0.1**decays for decays in range(len(schedule.decay_at) + 1)],
        milestones=list(schedule.decay_at),
        num_updates=schedule.iterations,
    )
    if schedule.warmup_iterations == 0:
        return steps
    warmup_share = schedule.warmup_iterations / schedule.iterations
    warmup = LinearParamScheduler(solver.warmup_factor * steps(0.0), steps(warmup_share))
    return CompositeParamScheduler(
        [warmup, steps],
        interval_scaling=["rescaled", "fixed"],
        lengths=[warmup_share, 1 - warmup_share],
    )
