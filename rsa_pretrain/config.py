"""What one pretraining run consists of: every setting, its default and its meaning."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_pretrain.config_files import Section

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Range = Annotated[tuple[float, float], Field(min_length=2, max_length=2)]
RGB = tuple[float, float, float]
Seed = Annotated[int, Field(ge=0)]


class DataConfig(Section):
    """Which images, where they lie and how they enter the network."""

    name: Literal["cifar10", "cifar100", "digits", "imagefolder"]
    """Data set; digits is embedded in scikit-learn, the others read files under `root`."""
    root: Path | None = None
    """Folder that holds the data set (not used by digits)."""
    image_size: Annotated[int, Field(ge=8, le=1024)]
    """Side of the square network input, in pixels."""
    eval_resize: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Evaluation resizes the short side to this and crops the centre; null: to the square."""
    mean: RGB | None = None
    """Per-channel mean, for pixels in [0, 1]; null takes the data set's published value."""
    std: RGB | None = None
    """Per-channel standard deviation, for pixels in [0, 1]; null as for the mean."""
    num_train_images: Annotated[int, Field(ge=1)] | None = None
    """Use a class-balanced random subset of this many training images; null uses all."""
    num_test_images: Annotated[int, Field(ge=1)] | None = None
    """The same for the test images."""
    subset_seed: Seed = 0
    """Seed of both subsets."""
    train_dir: str = "train"
    """imagefolder: training images lie in root/train_dir/CLASS/… (`.` is the root itself)."""
    test_dir: str = "val"
    """imagefolder: test images lie in root/test_dir/CLASS/…"""
    on_broken: Literal["error", "skip", "unchecked"] = "error"
    """imagefolder: decode every file at the start and refuse, or leave out, what is no image;
    unchecked trusts the files and stops at the first that cannot be decoded."""
    num_workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes (0 loads in the main process); the images do not depend on it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name != "digits" and self.root is None:
            raise ValueError(f"data set '{self.name}' needs data.root, the folder that holds it")
        if self.name == "digits" and self.root is not None:
            raise ValueError("data set 'digits' is embedded and takes no data.root")
        if (self.mean is None) != (self.std is None):
            raise ValueError("set both data.mean and data.std, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"data.std must be positive, found {self.std}")
        if self.eval_resize is not None and self.eval_resize < self.image_size:
            raise ValueError(
                f"data.eval_resize {self.eval_resize} is below data.image_size {self.image_size}"
            )
        return self


class WeakConfig(Section):
    """The weak augmentation t_w: random resized crop and flip."""

    crop_scale: Range = (0.2, 1.0)
    """Area of the crop as a share of the image."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, width over height."""
    flip_probability: Probability = 0.5
    """Horizontal flip."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high), top in (
            ("crop_scale", self.crop_scale, 1.0),
            ("crop_ratio", self.crop_ratio, 100.0),
        ):
            if not 0 < low <= high <= top:
                raise ValueError(f"{name} must hold 0 < low <= high <= {top:g}")
        return self


class AggressiveConfig(Section):
    """The aggressive augmentation t_a, MoCo v2's: colour jitter, grayscale, Gaussian blur."""

    jitter_probability: Probability = 0.8
    """Colour jitter."""
    brightness: Annotated[float, Field(ge=0)] = 0.4
    """Jitter factor drawn from [1 - b, 1 + b]."""
    contrast: Annotated[float, Field(ge=0)] = 0.4
    """As brightness."""
    saturation: Annotated[float, Field(ge=0)] = 0.4
    """As brightness."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Hue shift drawn from [-h, h], in turns of the colour circle."""
    grayscale_probability: Probability = 0.2
    """Grayscale."""
    blur_probability: Probability = 0.5
    """Gaussian blur; 0 switches it off."""
    blur_sigma_pixels: Range = (0.1, 2.0)
    """Standard deviation of the blur."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.blur_sigma_pixels
        if not 0 < low <= high:
            raise ValueError("blur_sigma_pixels must hold 0 < low <= high")
        return self


class ViewsConfig(Section):
    """Multi-stage augmentation, paper Eq. 3."""

    weak: WeakConfig = WeakConfig()
    aggressive: AggressiveConfig = AggressiveConfig()


class BackboneConfig(Section):
    """The network whose features are wanted."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    """torchvision's ResNet of this name, without its classifier."""
    stem: Literal["standard", "cifar"]
    """standard: 7x7 stride 2 and max-pool; cifar: 3x3 stride 1, no max-pool."""
    zero_init_residual: bool = True
    """Start each residual branch at zero."""


class RSAConfig(Section):
    """RSA: Bai et al. 2022."""

    name: Literal["rsa"]
    """The method."""
    hidden_dim: Annotated[int, Field(ge=1)]
    """Width of the hidden layer of projector and predictor."""
    output_dim: Annotated[int, Field(ge=1)]
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


class OptimizerConfig(Section):
    """SGD with momentum; all parameters are decayed, as in the paper's release."""

    base_lr: Annotated[float, Field(gt=0)]
    """Learning rate for a batch of 256; lr = base_lr * global batch / 256."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0)]
    """L2 penalty."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear ramp of the rate from 0, before the cosine to 0."""


class TrainingConfig(Section):
    """The loop."""

    epochs: Annotated[int, Field(ge=1)]
    """Passes over the training images."""
    batch_size_per_device: Annotated[int, Field(ge=2)]
    """Images per step on each device; the last incomplete batch of an epoch is left out."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast type of the forward passes; fp16 adds a gradient scaler and needs a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    checkpoint_every_epochs: Annotated[int, Field(ge=1)] = 1
    """A checkpoint is also written at the end and when the run is stopped."""
    keep_checkpoints: Annotated[int, Field(ge=1)] | None = 3
    """How many of the newest checkpoints stay; null keeps all."""
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps averaged into one line of metrics; a non-finite loss is noticed here at the latest."""


class PretrainConfig(Section):
    """One pretraining run."""

    output_dir: Path
    """Run folder; it must be new, unless the run is resumed."""
    seed: Seed = 0
    """Seeds initialisation, data order and augmentation."""
    data: DataConfig
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig
    method: RSAConfig
    optimizer: OptimizerConfig
    training: TrainingConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer.warmup_epochs >= self.training.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs {self.optimizer.warmup_epochs:g} leaves nothing of "
                f"training.epochs {self.training.epochs}"
            )
        return self


# Changing one of these on --resume leaves the result what it would have been.
RESULT_NEUTRAL_KEYS = frozenset(
    {
        "output_dir",
        "data.root",
        "data.num_workers",
        "training.device",
        "training.checkpoint_every_epochs",
        "training.keep_checkpoints",
        "training.log_every_steps",
    }
)
