"""What one pretraining run consists of: every setting, its default and its meaning."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from rsa_pretrain.data.sets import is_pixels
from rsa_pretrain.data.settings import DataConfig, Probability, Seed
from rsa_pretrain.methods.settings import MethodConfig
from rsa_pretrain.plumbing.config.files import Section, flatten, load_config, parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

Range = Annotated[tuple[float, float], Field(min_length=2, max_length=2)]
DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
Stage = Literal["layer1", "layer2", "layer3", "layer4"]


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


class TrainingViewsConfig(ViewsConfig):
    """The views of a run, and what makes them."""

    implementation: Literal["pillow", "batched"] = "pillow"
    """pillow: image by image in the loader processes; batched: whole batches of uint8 images on the
    training device, several times faster. The views are the same in distribution, the draws are
    not; aggressive views are about one grey level of 255 brighter on average, since Pillow
    truncates after each operation. A set of small images is then held in memory (or the GPU's) and
    needs no loader processes; of others they decode and crop."""


class BackboneConfig(Section):
    """The network whose features are wanted."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    """torchvision's ResNet of this name, without its classifier."""
    stem: Literal["standard", "cifar"]
    """standard: 7x7 stride 2 and max-pool; cifar: 3x3 stride 1, no max-pool."""
    stem_init: Literal["kaiming", "default"] = "kaiming"
    """Initial weights of the first convolution. kaiming: normal by fan-out, as in torchvision's
    ResNets (standard deviation 0.06 in the cifar stem); default: torch's own of a convolution, as
    RSA's release leaves its CIFAR stem (0.11)."""
    zero_init_residual: bool = True
    """Start each residual branch at zero, as BYOL, SimSiam, SimCLR and RSA's release do; MoCo v2
    and supervised training do not."""


class OptimizerConfig(Section):
    """SGD or LARS, with momentum and a warm-up and cosine schedule set per step."""

    name: Literal["sgd", "lars"] = "sgd"
    """sgd decays every parameter, as the paper's release does; lars (You et al. 2017) neither
    decays nor adapts tensors of one dimension or none (biases, norms)."""
    base_lr: Annotated[float, Field(gt=0)]
    """Learning rate for a batch of 256; lr = base_lr * training.global_batch_size / 256."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    weight_decay: Annotated[float, Field(ge=0)]
    """L2 penalty."""
    trust_coefficient: Annotated[float, Field(gt=0)] = 0.001
    """lars: step length relative to the tensor's norm."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear ramp of the rate from 0, before the cosine to 0."""


class TrainingConfig(Section):
    """The loop, and what it runs on."""

    epochs: Annotated[int, Field(ge=1)]
    """Passes over the training images."""
    global_batch_size: Annotated[int, Field(ge=2)]
    """Images per optimizer step, over all devices; the last incomplete batch of an epoch is left
    out."""
    batch_size_per_device: Annotated[int, Field(ge=1)] | None = None
    """Images per forward pass on one device, which is what BatchNorm sees without
    sync_batchnorm. A global batch that needs several passes accumulates their gradients. null:
    the global batch divided by the number of devices."""
    sync_batchnorm: bool = False
    """Share BatchNorm statistics between GPUs (one device: plain BatchNorm)."""
    precision: Precision = "fp32"
    """Autocast type of the forward passes; fp16 adds a gradient scaler and needs a GPU."""
    compile: bool = False
    """Compile the networks with torch.compile; the first steps take minutes."""
    device: DeviceName = "auto"
    """auto takes a GPU where there is one."""
    checkpoint_every_epochs: Annotated[int, Field(ge=1)] = 1
    """A checkpoint is also written at the end and when the run is stopped."""
    keep_checkpoints: Annotated[int, Field(ge=1)] | None = 3
    """How many of the newest checkpoints stay; null keeps all."""


class MonitorConfig(Section):
    """What is watched while training goes on."""

    log_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps averaged into one line of metrics; a non-finite loss is noticed here at the latest."""
    knn_every_epochs: Annotated[int, Field(ge=1)] | None = None
    """Classify held-out training images by nearest neighbours this often; null: never."""
    num_held_out_images: Annotated[int, Field(ge=1)] = 1000
    """With knn_every_epochs: training images (class-balanced) kept out of training as queries."""
    num_bank_images: Annotated[int, Field(ge=1)] = 5000
    """With knn_every_epochs: most training images to look for neighbours in."""
    knn_k: Annotated[int, Field(ge=1)] = 20
    """Neighbours that vote."""
    knn_temperature: Annotated[float, Field(gt=0)] = 0.07
    """Of the vote's weights exp(similarity / T)."""
    wandb_project: str | None = None
    """Also log to this Weights & Biases project (needs the extra `wandb`)."""


class ExtensionConfig(Section):
    """The finished run that this one extends; ``--extend`` fills it in."""

    backbone_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of that run's backbone.safetensors, the `parent` of every file of this run."""
    step: Annotated[int, Field(ge=1)]
    """Optimizer steps it took."""
    before: dict[str, JsonValue]
    """Its schedule, by dotted key, and what it extended itself."""


CONFIG_FILE = "config.yaml"  # every setting of a run, in its folder


def _run_folder(settings: dict[str, Any]) -> Path:
    data, method, training = (settings[key] for key in ("data", "method", "training"))
    return Path("runs", f"{data.name}-{method.name}-{training.epochs}ep".replace("_", "-"))


class PretrainConfig(Section):
    """One pretraining run."""

    seed: Seed = 0
    """Seeds initialisation, data order and augmentation."""
    data: DataConfig
    views: TrainingViewsConfig = TrainingViewsConfig()
    backbone: BackboneConfig
    method: MethodConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    monitor: MonitorConfig = MonitorConfig()
    output_dir: Path = Field(default_factory=_run_folder)
    """Run folder; it must be new, unless the run is resumed. Left out:
    runs/DATA-METHOD-EPOCHSep."""
    extends: ExtensionConfig | None = None
    """The finished run that this one extends, filled in by --extend; null: it starts from random
    weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer.warmup_epochs >= self.training.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs {self.optimizer.warmup_epochs:g} leaves nothing of "
                f"training.epochs {self.training.epochs}"
            )
        return self


# Changing one of these on --resume leaves the run what it was, up to rounding and, for the batch
# per device, BatchNorm's groups (the trainer says so when they change).
RESUMABLE_CHANGES = frozenset(
    {
        "output_dir",
        "data.root",
        "data.num_workers",
        "data.max_megapixels",
        "training.batch_size_per_device",
        "training.compile",
        "training.device",
        "training.checkpoint_every_epochs",
        "training.keep_checkpoints",
        "monitor.log_every_steps",
        "monitor.wandb_project",
    }
)


# What the learning rate, beta and the target's momentum are as functions of progress; extending a
# finished run may change them.
SCHEDULE_SETTINGS = frozenset(
    {
        "training.epochs",
        "optimizer.base_lr",
        "optimizer.warmup_epochs",
        "method.ema_momentum",
        "method.beta_base",
        "method.beta_mode",
    }
)


def result_changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    may_differ: Collection[str] = RESUMABLE_CHANGES,
) -> list[str]:
    """List the settings that make another run, as ``key (was …, is …)``.

    Args:
        before: Settings of a run, as plain values.
        now: Settings to go on with.
        may_differ: Dotted keys that are not compared.
    """
    old, new = flatten(before), flatten(now)
    return [
        f"{key} (was {old.get(key)}, is {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in may_differ
    ]


def with_old_orientation(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings, which may be older than the choice of how image files are turned.

    Other settings newer than a run had no other effect than their defaults. Image files were read
    as they are stored.
    """
    data = tree.get("data", {})
    if "exif_orientation" in data or is_pixels(data.get("name")):
        return dict(tree)
    return {**tree, "data": {**data, "exif_orientation": False}}


def load_run(folder: Path) -> PretrainConfig:
    """Read the settings of a run from its folder; they may be older than some choices.

    Raises:
        UserError: As ``load_config``.
    """
    path = folder / CONFIG_FILE
    stated = load_config(PretrainConfig, path).model_dump(mode="json", exclude_unset=True)
    return parse_tree(PretrainConfig, with_old_orientation(stated), str(path))


def reads_elsewhere(run: PretrainConfig) -> bool:
    """Whether a run names another ``data.root`` than the one in its folder, which may be moved."""
    is_started = (run.output_dir / CONFIG_FILE).exists()
    return is_started and load_run(run.output_dir).data.root != run.data.root


def refuse_another_run(run: PretrainConfig) -> None:
    """Refuse, before any work is done, to go on in the folder of a run of other settings.

    Raises:
        UserError: Names them.
    """
    if not (run.output_dir / CONFIG_FILE).exists():
        return
    changed = result_changes(to_tree(load_run(run.output_dir)), to_tree(run))
    if changed:
        raise UserError(
            f"'{run.output_dir}' holds a run of other settings: {', '.join(changed)}; "
            "restore them or choose another --out"
        )
