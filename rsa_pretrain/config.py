"""Define the settings of one pretraining run, with their defaults and meanings."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from rsa_pretrain.components.settings import BackboneConfig, OptimizerConfig
from rsa_pretrain.data.sets import is_pixels
from rsa_pretrain.data.settings import DataConfig, Seed
from rsa_pretrain.methods.settings import MethodConfig
from rsa_pretrain.plumbing.config.files import Section, flatten, load_config, parse_tree, to_tree
from rsa_pretrain.plumbing.device_names import DeviceName, Precision
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.views.settings import TrainingViewsConfig


class TrainingConfig(Section):
    """The training loop, and the hardware it runs on."""

    epochs: Annotated[int, Field(ge=1)]
    """Passes over the training images."""
    global_batch_size: Annotated[int, Field(ge=2)]
    """Images per optimizer step, over all devices; the last incomplete batch of an epoch is
    dropped."""
    batch_size_per_device: Annotated[int, Field(ge=1)] | None = None
    """Images per forward pass on one device, which is what BatchNorm sees without
    sync_batchnorm. A global batch that needs several passes accumulates their gradients. null:
    the global batch divided by the number of devices."""
    sync_batchnorm: bool = False
    """Share BatchNorm statistics between GPUs (one device: plain BatchNorm)."""
    precision: Precision = "fp32"
    """Autocast type of the forward passes; fp16 adds a gradient scaler and needs a GPU."""
    compile: bool = False
    """Compile the backbones with torch.compile; the first steps take minutes."""
    cuda_graph: Literal["auto", True, False] = "auto"
    """Replay a step's forward and backward pass as one CUDA graph, which spares the CPU a thousand
    launches. auto: where that is possible, and otherwise the reason is logged; true: it must be."""
    device: DeviceName = "auto"
    """auto takes a GPU where there is one."""
    checkpoint_every_epochs: Annotated[int, Field(ge=1)] = 1
    """A checkpoint is also written at the end and when the run is stopped."""
    keep_checkpoints: Annotated[int, Field(ge=1)] | None = 3
    """Number of newest checkpoints to keep; null keeps all."""


class MonitorConfig(Section):
    """Monitoring during training."""

    log_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps averaged into one line of metrics; a non-finite loss is detected here at the latest."""
    knn_every_epochs: Annotated[int, Field(ge=1)] | None = None
    """Classify held-out training images by nearest neighbours this often, and measure the
    effective rank (RankMe) of their features; null: never."""
    num_held_out_images: Annotated[int, Field(ge=1)] = 1000
    """With knn_every_epochs: training images (class-balanced) kept out of training as queries."""
    num_bank_images: Annotated[int, Field(ge=1)] = 5000
    """With knn_every_epochs: maximum number of training images to search for neighbours."""
    knn_k: Annotated[int, Field(ge=1)] = 20
    """Neighbours that vote."""
    knn_temperature: Annotated[float, Field(gt=0)] = 0.07
    """Temperature T of the vote's weights exp(similarity / T)."""
    wandb_project: str | None = None
    """Also log to this Weights & Biases project (needs the extra `wandb`)."""


class ExtensionConfig(Section):
    """The finished run that this one extends; ``--extend`` fills it in."""

    backbone_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of that run's backbone.safetensors, the `parent` of every file of this run."""
    step: Annotated[int, Field(ge=1)]
    """Optimizer steps it took."""
    before: dict[str, JsonValue]
    """Its schedule, by dotted key, and the run that it extended, if any."""


CONFIG_FILE = "config.yaml"  # every setting of a run, in its folder


def _run_folder(settings: dict[str, Any]) -> Path:
    data, method, training = (settings.get(key) for key in ("data", "method", "training"))
    if data is None or method is None or training is None:  # these settings are refused
        return Path("runs")
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
    """Run folder; it must be new, unless the run is resumed. Default:
    runs/DATA-METHOD-EPOCHSep."""
    extends: ExtensionConfig | None = None
    """The finished run that this one extends, filled in by --extend; null: it starts from random
    weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer.warmup_epochs >= self.training.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs {self.optimizer.warmup_epochs:g} must be below "
                f"training.epochs {self.training.epochs}; lower it or train longer"
            )
        return self


# Changing one of these on --resume leaves the run the same, up to rounding and, for the batch
# per device, BatchNorm's groups (the trainer says so when they change).
RESUMABLE_CHANGES = frozenset(
    {
        "output_dir",
        "data.root",
        "data.num_workers",
        "data.max_megapixels",
        "training.batch_size_per_device",
        "training.compile",
        "training.cuda_graph",
        "training.device",
        "training.checkpoint_every_epochs",
        "training.keep_checkpoints",
        "monitor.log_every_steps",
        "monitor.wandb_project",
    }
)

# A run with other values of these is faster or slower and its result differs slightly, so it is not
# resumed with them. A row of the paper may be trained with them; its records note it.
SPEED_SETTINGS = frozenset({"training.precision", "views.implementation"})


# These set the learning rate, beta and the target's momentum as functions of progress; extending a
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
    """List the settings that would change a run's result, as ``key (was …, is …)``.

    Args:
        before: Settings of a run, as plain values.
        now: Settings to continue with.
        may_differ: Dotted keys that are not compared.
    """
    old, new = flatten(before), flatten(now)
    return [
        f"{key} (was {old.get(key)}, is {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in may_differ
    ]


def with_old_orientation(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings, with the image orientation of runs older than that setting.

    Those runs read image files as stored. Other settings newer than a run need no such care: their
    defaults keep its behaviour.
    """
    data = tree.get("data", {})
    if not isinstance(data, Mapping):  # for whoever parses the tree to refuse
        return dict(tree)
    if "exif_orientation" in data or is_pixels(data.get("name")):
        return dict(tree)
    return {**tree, "data": {**data, "exif_orientation": False}}


def load_run(folder: Path) -> PretrainConfig:
    """Read the settings of a run from its folder; the run may predate some settings.

    Raises:
        UserError: As ``load_config``.
    """
    path = folder / CONFIG_FILE
    stated = load_config(PretrainConfig, path).model_dump(mode="json", exclude_unset=True)
    return parse_tree(PretrainConfig, with_old_orientation(stated), str(path))


def reads_elsewhere(run: PretrainConfig) -> bool:
    """Return whether a run's ``data.root`` differs from the one in its folder: data may move."""
    is_started = (run.output_dir / CONFIG_FILE).exists()
    return is_started and load_run(run.output_dir).data.root != run.data.root


def refuse_another_run(run: PretrainConfig) -> None:
    """Refuse, before any work is done, to continue in the folder of a run with other settings.

    Raises:
        UserError: If settings differ; names them.
    """
    if not (run.output_dir / CONFIG_FILE).exists():
        return
    changed = result_changes(to_tree(load_run(run.output_dir)), to_tree(run))
    if changed:
        raise UserError(
            f"'{run.output_dir}' contains a run with other settings: {', '.join(changed)}; "
            "restore them or choose another --out"
        )
