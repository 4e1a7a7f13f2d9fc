"""Plan a label curve: the trials of checkpoints and baselines, and the labels they get."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rsa_eval.campaigns.label_curve.settings import LabelCurveConfig
from rsa_eval.campaigns.settings import PlannedEvaluation
from rsa_eval.campaigns.suite import (
    Baseline,
    baseline_name,
    networks_of,
    plan_checkpoints,
    plan_random,
    random_trial,
    refuse_nothing,
    split_bare,
)
from rsa_eval.campaigns.trials import Trial
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.low_shot.settings import LowShotConfig
from rsa_eval.evaluators.shared.labelled_images import open_splits
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.features.networks.spec import Checkpoint, NetworkSpec
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

RECORD = "label-curve"
"""Name of a model's record, and start of the names of supervised ones."""

ModelKind = Literal["checkpoint", "random", "supervised"]

_DEPARTURE = "trained from random weights as a supervised baseline (protocol: from a checkpoint)"


@dataclass(frozen=True)
class CurveSize:
    """One number of labels."""

    subset: Subset
    labels_per_class: float
    """The mean over classes where the subset is all labels."""
    num_images: int
    num_draws: int

    @property
    def is_all(self) -> bool:
        """True if these are all labels."""
        return self.subset.per_class is None

    @property
    def name(self) -> str:
        """Heading of a table's column."""
        count = f"{self.labels_per_class:.4g}"
        return f"all ({count})" if self.is_all else count


@dataclass(frozen=True)
class CurveModel:
    """A checkpoint or a baseline."""

    trial: Trial
    kind: ModelKind
    network: Baseline | None
    """The network with random weights; None where these are not known."""


@dataclass(frozen=True)
class CurvePlan:
    """Models and numbers of labels of one label curve."""

    models: tuple[CurveModel, ...]
    sizes: tuple[CurveSize, ...]
    """By increasing number of labels."""
    left_out: tuple[str, ...]
    """A line for the requested numbers that the images do not allow."""

    @property
    def trials(self) -> list[Trial]:
        """The trials of all models, in order."""
        return [model.trial for model in self.models]


def plan_label_curve(
    config: LabelCurveConfig,
    checkpoints: Sequence[Checkpoint],
    out: Path,
    labels: Sequence[int | None],
    num_draws: int,
    *,
    random_init: bool,
    supervised: bool,
) -> CurvePlan:
    """Read each checkpoint and count the labels once; add the baselines.

    Args:
        config: Images, network and training of the baselines.
        checkpoints: Anything ``load_subject`` takes.
        out: Folder of the trials.
        labels: Labels per class; None for all.
        num_draws: Draws of each number but all.
        random_init: Add frozen random weights.
        supervised: Add the networks trained on the labels alone, one record per size and draw.

    Raises:
        UserError: If images or checkpoints cannot be used, no number of labels remains, or there
            is nothing to evaluate.
    """
    common = config.common(out / "features")
    opened = parse_tree(LowShotConfig, common, None)
    train, _ = open_splits(opened)
    sizes, left_out = curve_sizes(train, labels, num_draws)
    changes = {
        "subsets": tuple(size.subset for size in sizes),
        "subset_seeds": tuple(range(num_draws)),
    }
    low_shot = EVALUATORS["low-shot"]
    evaluation = PlannedEvaluation(RECORD, low_shot, opened.model_copy(update=changes))
    trained, bare = split_bare(checkpoints, random_init=random_init or supervised)
    planned = plan_checkpoints(config, [evaluation], trained, out)
    networks = networks_of(config, planned, bare) if random_init or supervised else []
    if (random_init or supervised) and config.backbone is None:
        left_out += _without_baselines(planned)
    models = [CurveModel(trial, "checkpoint", network) for trial, network in planned]
    if random_init:
        trials = plan_random(config, networks, [evaluation], out)
        pairs = zip(trials, networks, strict=True)
        models += [CurveModel(trial, "random", network) for trial, network in pairs]
    if supervised:
        models += [_supervised(config, network, sizes, out) for network in networks]
    plan = CurvePlan(tuple(models), tuple(sizes), tuple(left_out))
    refuse_nothing(plan.trials)
    return plan


def curve_sizes(
    train: ImageSet, labels: Sequence[int | None], num_draws: int
) -> tuple[list[CurveSize], list[str]]:
    """Return the numbers of labels that every class has, and lines on those left out.

    Raises:
        UserError: If none is left.
    """
    counts = np.bincount(train.require_labels(), minlength=len(train.class_names))
    fewest, most = int(counts.min()), int(counts.max())
    numbers = sorted({count for count in labels if count is not None})
    too_many = [count for count in numbers if count > fewest]
    takes_all = None in labels
    same = [fewest] if takes_all and fewest == most and fewest in numbers else []
    found = [
        CurveSize(Subset(per_class=count), count, count * len(counts), num_draws)
        for count in numbers
        if count not in (*too_many, *same)
    ]
    if takes_all:
        mean = len(train) / len(counts)
        found.append(CurveSize(Subset(percent=100), mean, len(train), 1))
    poorest = train.class_names[int(counts.argmin())]
    why = f"{' and '.join(map(str, too_many))} labels per class: class '{poorest}' has {fewest}"
    if not found:
        raise UserError(f"no number of labels is left: {why}; add smaller --labels, or all")
    left_out = [why] if too_many else []
    return found, left_out + [f"{count} labels per class: that is all of them" for count in same]


def supervised_record(size: CurveSize, draw: int) -> str:
    """Return the name of the record of one training."""
    return f"{RECORD}-{'all' if size.is_all else size.subset.name}-draw{draw}"


def _without_baselines(planned: Sequence[tuple[Trial, Baseline | None]]) -> list[str]:
    return [
        f"baselines of {trial.label}: of other libraries' networks only timm's and torchvision's "
        "have random weights"
        for trial, network in planned
        if network is None
    ]


def _supervised(
    config: LabelCurveConfig,
    network: Baseline,
    sizes: Sequence[CurveSize],
    out: Path,
) -> CurveModel:
    """Return a model that is trained once per size and draw, each with its own random weights."""
    chosen = {} if isinstance(network, NetworkSpec) else {"backbone": to_tree(network)}
    evaluations = []
    for size in sizes:
        for draw in range(size.num_draws):
            tree = config.common(out / "features") | {
                **chosen,
                "seed": config.seed + draw,
                "subset": None if size.is_all else to_tree(size.subset),
                "subset_seed": draw,
                "tuning": config.supervised.tuning(size.num_images),
            }
            settings = parse_tree(FinetuneConfig, tree, "supervised")
            name = supervised_record(size, draw)
            evaluations.append(PlannedEvaluation(name, EVALUATORS["finetune"], settings))
    name = baseline_name("supervised", network, config.seed)
    if isinstance(network, NetworkSpec):
        trial = random_trial(name, out, network, evaluations, (_DEPARTURE,))
    else:
        trial = Trial(name, out / name, tuple(evaluations), departures=(_DEPARTURE,))
    return CurveModel(trial, "supervised", network)
