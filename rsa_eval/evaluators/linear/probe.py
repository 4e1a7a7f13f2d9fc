"""Train and score linear classifiers on frozen features."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial

import torch
from torch import Tensor

from rsa_eval.evaluators.linear.batches import ProbeBatches, ReadOrder
from rsa_eval.evaluators.linear.heads import Heads
from rsa_eval.evaluators.linear.settings import ProbeConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.evaluators.shared.resumable import run_to_end
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.components.schedules import cosine
from rsa_pretrain.plumbing.errors import UserError

_SCORED_AT_ONCE = 4096


def train_probe(
    state: ProbeState, batches: ProbeBatches, order: ReadOrder, save_every_minutes: float
) -> None:
    """Train all heads to the end of the last epoch, starting from the state's step.

    The state is saved at the given interval, at the end, and when a signal stops the training.

    Args:
        state: Heads and optimizer state, trained in place.
        batches: Features and labels from a given step on.
        order: Number of steps and their batch sizes.
        save_every_minutes: 0 saves after each step.

    Raises:
        UserError: If no head has a finite loss any more.
        Stopped: If a signal requested it, in all processes alike.
    """
    with closing(batches(state.step)) as steps:
        take_step = partial(_train_step, state, steps, order)
        run_to_end(state, take_step, order.num_steps, "linear probe", save_every_minutes)


def _train_step(
    state: ProbeState, steps: Generator[tuple[Tensor, Tensor], None, None], order: ReadOrder
) -> None:
    epoch, batch = divmod(state.step, order.steps_per_epoch)
    batch_size = order.images_in(state.step)
    decay = rate_decay(state.trainer.probe, epoch, state.step / order.num_steps)
    features, labels = next(steps)
    losses = state.trainer.step(features, labels, batch_size, decay)
    state.loss_sums.add_(losses, alpha=batch_size)
    state.step += 1
    if batch == order.steps_per_epoch - 1:
        state.losses.append((state.loss_sums / order.num_images).tolist())
        state.loss_sums.zero_()
        if not any(math.isfinite(loss) for loss in state.losses[-1]):
            raise UserError(
                f"the probe's loss is {state.losses[-1][0]} in epoch {epoch}; lower probe.base_lr "
                f"(now {', '.join(f'{rate:g}' for rate in state.trainer.probe.base_lr)})"
            )


def rate_decay(probe: ProbeConfig, epoch: int, progress: float) -> float:
    """Return the schedule's factor on the learning rates.

    Args:
        probe: The schedule.
        epoch: Counted from 0.
        progress: Fraction of all steps done.
    """
    if probe.schedule == "milestones":
        passed = sum(epoch >= milestone for milestone in probe.milestones)
        return probe.gamma**passed
    if probe.schedule == "cosine_by_epoch":
        progress = epoch / probe.epochs
    return cosine(1.0, 0.0, progress)


@torch.no_grad()
def score_heads(
    heads: Heads, test: LabelledFeatures, scaling: Callable[[Tensor], Tensor]
) -> list[Answers | None]:
    """Classify by each head; None for a head that diverged.

    Args:
        heads: The classifiers.
        test: Features under the evaluation transform.
        scaling: Applied to the features, as in training.
    """
    device = heads.weight.device
    parts: list[Sequence[Tensor]] = []
    for start in range(0, len(test.labels), _SCORED_AT_ONCE):
        rows = slice(start, start + _SCORED_AT_ONCE)
        features = test.features[rows].to(device, non_blocking=True)
        scores = heads.scores(scaling(features))  # (n, H, C)
        parts.append(answer(scores, test.labels[rows].to(device, non_blocking=True)))  # (n, H)
    return [
        Answers.of([[column[:, head] for column in part] for part in parts])
        for head in range(len(heads.bias))
    ]
