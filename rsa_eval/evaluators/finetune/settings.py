"""Settings of fine-tuning and of its published protocols."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rsa_eval.evaluators.shared.multi_label_settings import WithMultiLabel
from rsa_eval.evaluators.shared.settings import Subset, TrainingOnViews
from rsa_pretrain.data.settings import Seed
from rsa_pretrain.plumbing.config.files import Section


class TuningConfig(TrainingOnViews):
    """Joint training of backbone and head; the defaults are SwAV's for 10 % of the labels."""

    epochs: Annotated[int, Field(ge=1)] | None = 20
    """Passes over the labelled images; null: as many as `steps` take. Setting one of them alone
    replaces the protocol's other."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps in total, whatever the number of images; null: those of `epochs`."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Largest batch over all processes; the batches of an epoch differ by at most one image."""
    backbone_base_lr: Annotated[float, Field(ge=0)] = 0.01
    """Learning rate of the backbone for a batch of 256; lr = base_lr * batch_size / 256."""
    head_base_lr: Annotated[float, Field(gt=0)] = 0.2
    """Learning rate of the new linear layer for a batch of 256."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty of all parameters. BYOL does not say whether it spares BatchNorm's."""
    schedule: Literal["milestones", "cosine"] = "milestones"
    """Decay of both learning rates: at the milestones, or step by step along half a cosine to 0.
    BYOL states no schedule; its cosine is our choice, that of SimCLR's code."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (12, 16)
    """Epochs at whose start both learning rates are multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Factor applied at each milestone."""
    bn_momentum: Literal["unchanged", "by_epoch_length"] = "unchanged"
    """Share of BatchNorm's running statistics kept in each step. by_epoch_length: the larger of
    0.9 and 1 - 10/s, where an epoch has s steps; unchanged: the network's, usually 0.9."""
    sync_batchnorm: bool = True
    """Synchronise BatchNorm statistics across GPUs; CPU processes keep separate statistics."""

    def num_steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps in total."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * steps_per_epoch

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"set either epochs or steps, found {self.epochs} and {self.steps}; the other is "
                "null"
            )
        if self.milestones and self.schedule != "milestones":
            raise ValueError(
                f"schedule {self.schedule} has no milestones, found {list(self.milestones)}; "
                "set milestones=[]"
            )
        if self.nesterov and self.sgd_momentum == 0:
            raise ValueError("nesterov needs sgd_momentum above 0, found 0; set either")
        return self


class GridConfig(Section):
    """Rates and decays, all pairs of which are tried; the best on validation images is tested.

    A single pair is trained without a search.
    """

    base_lr: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Learning rates of backbone and head alike, in place of those in `tuning`, for a batch of 256;
    empty: no search."""
    decays: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weight decays times the learning rate: the L2 penalty is value / lr."""
    held_out_percent: Annotated[float, Field(gt=0, lt=100)] = 20.0
    """Share of each class's training images, or of all images of a multi-label set, held out for
    validation where the data set publishes no validation split. Our choice: BYOL holds out 20 % of
    SUN397, Cars and Pets, 10 % of Food-101 and CIFAR-10, 17 % of Caltech-101 (Table 10)."""

    @property
    def is_searched(self) -> bool:
        """True if there is more than one pair."""
        return len(self.base_lr) * len(self.decays) > 1

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        if bool(self.base_lr) != bool(self.decays):
            raise ValueError(
                "a grid has both base_lr and decays, or neither, found "
                f"{len(self.base_lr)} and {len(self.decays)} values"
            )
        for key in ("base_lr", "decays"):
            values = getattr(self, key)
            if any(first >= second for first, second in pairwise(values)):
                raise ValueError(f"{key} must increase, found {list(values)}")
        return self


@dataclass(frozen=True)
class FinetuneProtocol:
    """A published fine-tuning protocol."""

    tuning: TuningConfig
    subset: Subset | None
    grid: GridConfig


FINETUNE_PROTOCOLS = {
    # SwAV's semi-supervised fine-tuning (Caron et al. 2020, Section 4.1), rates as in its release.
    "swav_10pct": FinetuneProtocol(TuningConfig(), Subset(percent=10), GridConfig()),
    "swav_1pct": FinetuneProtocol(
        TuningConfig(backbone_base_lr=0.02, head_base_lr=5.0), Subset(percent=1), GridConfig()
    ),
    # BYOL's transfer (Grill et al. 2020, arXiv:2006.07733v3, Appendix D.3), which restates SimCLR's
    # (Chen et al. 2020, Appendix B.8). Neither states a schedule, the crop's area, the new layer's
    # initialisation or which parameters decay. The rates and the decay in `tuning` count without a
    # grid alone: the middle of the published rates, and none.
    "byol": FinetuneProtocol(
        TuningConfig(
            epochs=None,
            steps=20_000,
            backbone_base_lr=0.01,
            head_base_lr=0.01,
            nesterov=True,
            schedule="cosine",
            milestones=(),
            bn_momentum="by_epoch_length",
        ),
        subset=None,
        grid=GridConfig(
            base_lr=tuple(10 ** (power / 2) for power in range(-8, -1)),
            decays=(0.0, *(10 ** (power / 2) for power in range(-12, -5))),
        ),
    ),
}

_BY_GRID = ("backbone_base_lr", "head_base_lr", "weight_decay")


class FinetuneOptions(Section):
    """The labelled images, the search and the training."""

    protocol: Literal["swav_10pct", "swav_1pct", "byol"] = "swav_10pct"
    """The published protocol this run follows: it sets the defaults of `tuning`, `subset` and
    `grid`, and the record lists departures from it."""
    subset: Subset | None = Subset(percent=10)
    """Training images whose labels are used; null: all."""
    subset_seed: Seed = 0
    """Decides which images are drawn."""
    tuning: TuningConfig = TuningConfig()
    """Changes to the protocol's settings."""
    grid: GridConfig = GridConfig()
    """Changes to the protocol's search."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_protocol(cls, tree: Any) -> Any:
        """Merge the given settings over the protocol's."""
        published = FINETUNE_PROTOCOLS.get(str(tree.get("protocol", "swav_10pct")))
        changes, grid = tree.get("tuning", {}), tree.get("grid", {})
        if published is None or not isinstance(changes, dict) or not isinstance(grid, dict):
            return tree  # field validation reports the mistake
        subset = None if published.subset is None else published.subset.model_dump()
        tuning = published.tuning.model_dump()
        if ("steps" in changes) != ("epochs" in changes):
            tuning |= {"steps": None, "epochs": None}
        started = {"subset": subset} | tree
        return started | {"tuning": tuning | changes, "grid": published.grid.model_dump() | grid}

    @model_validator(mode="after")
    def _check_what_the_grid_replaces(self) -> Self:
        usual = FINETUNE_PROTOCOLS[self.protocol].tuning
        for key in _BY_GRID if self.grid.base_lr else ():
            if getattr(self.tuning, key) != getattr(usual, key):
                raise ValueError(
                    f"the grid decides tuning.{key}, found {getattr(self.tuning, key):g}; leave it "
                    "out, or search nothing: grid.base_lr=[] grid.decays=[]"
                )
        return self


class FinetuneConfig(FinetuneOptions, WithMultiLabel):
    """Supervised fine-tuning of the whole network; its features are never cached.

    Of a multi-label data set, each class has a sigmoid output, and the mean of the average
    precisions at eleven points chooses rate and decay.
    """

    save_every_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between saves of the training state; rerun the command to resume."""

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        if self.layers != ("layer4",) or self.feature_dtype != "fp32":
            raise ValueError(
                "fine-tuning trains the whole backbone below one head; leave out layers and "
                "feature_dtype"
            )
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.multi_label is None:
            return self
        if self.subset is not None:
            raise ValueError(
                f"multi_label takes no subset by class, found {self.subset.name}; set subset=null, "
                "and data.num_train_images to draw some images"
            )
        if self.multi_label.val_split is not None and not self.grid.is_searched:
            raise ValueError(
                "multi_label.val_split chooses rate and decay, and there is no search; leave it "
                "out, or set protocol=byol"
            )
        return self
