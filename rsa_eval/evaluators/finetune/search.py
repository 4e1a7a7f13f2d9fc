"""Choose the learning rate and the weight decay of fine-tuning on validation images."""

import logging
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.finetune.task import TuningTask, has_published_validation
from rsa_eval.evaluators.finetune.training import classify, fine_tune, task_fingerprint
from rsa_eval.evaluators.finetune.tuning import Diverged
from rsa_eval.evaluators.shared.resumable import StateFile
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import WARNINGS
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.components.optim import scaled_lr
from rsa_pretrain.plumbing.distributed import is_main, wait_for_all
from rsa_pretrain.plumbing.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TriedCell:
    """A pair of the grid and its result on the validation images.

    Attributes:
        base_lr: Rate of backbone and head for a batch of 256.
        decay: Weight decay times learning rate.
        value: The data set's metric in percent; None if the training diverged.
        failure: Why it has no value.
    """

    base_lr: float
    decay: float
    value: float | None = None
    failure: str | None = None

    @property
    def text(self) -> str:
        """The pair and its result, for the log."""
        result = self.failure if self.value is None else f"{self.value:.2f} %"
        return f"rate {self.base_lr:g} and decay {self.decay:g}: {result}"


@dataclass(frozen=True)
class ChosenCell:
    """The settings to train with.

    Attributes:
        config: The evaluation with the chosen rate and decay.
        details: Results of the search, for a record.
    """

    config: FinetuneConfig
    details: dict[str, Any]


def with_cell(config: FinetuneConfig, base_lr: float, decay: float) -> FinetuneConfig:
    """Return the evaluation with a pair of the grid.

    Args:
        config: The evaluation.
        base_lr: Rate of backbone and head for a batch of 256.
        decay: Weight decay times learning rate.
    """
    lr = scaled_lr(base_lr, config.tuning.batch_size)
    cell = {"backbone_base_lr": base_lr, "head_base_lr": base_lr, "weight_decay": decay / lr}
    return config.model_copy(update={"tuning": config.tuning.model_copy(update=cell)})


def choose_cell(
    subject: Subject, task: TuningTask, config: FinetuneConfig, workspace: Workspace
) -> ChosenCell:
    """Train every pair of the grid on some of the images and take the best on the others.

    A single pair is taken without training; without a grid the settings stay as they are.
    Finished pairs are kept beside the record, so that the same call resumes the search.

    Args:
        subject: Backbone and its pixel statistics.
        task: Labelled training images.
        config: The evaluation.
        workspace: Where the states are kept.

    Raises:
        UserError: If no image can be set aside, or the training diverges with every pair.
        Stopped: If a signal stopped a training; the same call resumes it.
    """
    cells = list(product(config.grid.base_lr, config.grid.decays))
    if not cells:
        return ChosenCell(config, {})
    if len(cells) == 1:
        return ChosenCell(with_cell(config, *cells[0]), {})
    rows = task.validation(config)
    rest = task.select(np.delete(np.arange(len(task.images)), rows))
    validation = task.select(rows)
    fingerprint = task_fingerprint(subject, task, config) + validation.images.fingerprint()
    file = StateFile(workspace.grid_state, fingerprint, counted="pair")
    content = file.read()
    tried = [] if content is None else [TriedCell(**each) for each in content["tried"]]
    for number, cell in enumerate(cells[len(tried) :], start=len(tried) + 1):
        label = f"fine-tuning, pair {number} of {len(cells)}"
        found = _try(subject, rest, validation, with_cell(config, *cell), workspace, label)
        tried.append(TriedCell(*cell, **found))
        file.write({"step": len(tried), "tried": [asdict(each) for each in tried]})
        _forget_training(workspace)
        _log.info("%s, %s", label, tried[-1].text)
    return _best(tried, validation, config)


def _try(
    subject: Subject,
    rest: TuningTask,
    validation: TuningTask,
    config: FinetuneConfig,
    workspace: Workspace,
    label: str,
) -> dict[str, Any]:
    """Return the value of a pair, or why it has none."""
    try:
        tuning = fine_tune(subject, rest, config, workspace.state, label)
        return {"value": classify(subject, tuning, validation, "validation features").value}
    except Diverged as error:
        return {"failure": error.reason}


def _forget_training(workspace: Workspace) -> None:
    """Delete the state of a finished training, which the next one would find to be another's."""
    if is_main():
        workspace.state.unlink(missing_ok=True)
    wait_for_all()


def _best(tried: list[TriedCell], validation: TuningTask, config: FinetuneConfig) -> ChosenCell:
    """Take the best pair; of equal ones that of the lowest rate, then of the lowest decay."""
    usable = [(cell.value, cell) for cell in tried if cell.value is not None]
    if not usable:
        raise UserError(
            f"fine-tuning diverged with each of the {len(tried)} pairs of rate and decay (the "
            f"first: {tried[0].failure}); lower grid.base_lr"
        )
    chosen = max(usable, key=lambda pair: pair[0])[1]
    best = with_cell(config, chosen.base_lr, chosen.decay)
    warnings = _warnings(chosen, config.grid.base_lr)
    details = {
        "grid": [asdict(cell) for cell in tried],
        "chosen": asdict(chosen) | {"weight_decay": best.tuning.weight_decay},
        "validation": {
            "metric": validation.headline,
            "split": "published" if has_published_validation(config) else "drawn",
            "count": len(validation.images),
            "sha256": validation.images.fingerprint(),
        },
    }
    return ChosenCell(best, details | ({WARNINGS: warnings} if warnings else {}))


def _warnings(chosen: TriedCell, rates: tuple[float, ...]) -> list[str]:
    if len(rates) == 1 or chosen.base_lr not in (rates[0], rates[-1]):
        return []
    end = "lowest" if chosen.base_lr == rates[0] else "highest"
    text = (
        f"the best grid.base_lr of {len(rates)}, {chosen.base_lr:g}, is the {end} tried; another "
        "may be better"
    )
    _log.warning("%s", text)
    return [text]
