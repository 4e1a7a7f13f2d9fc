"""Choose among the heads of a trained probe on held-out training images."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rsa_eval.evaluators.linear.convergence import probe_warnings
from rsa_eval.evaluators.linear.probe import score_heads
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.evaluators.shared.metrics import Answers, TopKCounts
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.records.record import WARNINGS
from rsa_pretrain.plumbing.errors import UserError

_log = logging.getLogger(__name__)

_DIVERGED = "the probe diverged in its last epoch; lower probe.base_lr"


@dataclass(frozen=True)
class Probe:
    """A trained probe.

    Attributes:
        state: The heads after the last epoch.
        scaling: Maps the backbone's features to the heads' input.
        chosen: Index of the head to test.
        details: Details of the training, for the record.
    """

    state: ProbeState
    scaling: Callable[[Tensor], Tensor]
    chosen: int
    details: dict[str, Any]

    def scores(self, features: Tensor) -> Tensor:
        """Return the chosen head's logits, (n, C), for features, (n, D)."""
        return self.state.trainer.heads.scores(self.scaling(features))[:, self.chosen]

    def test(self, features: LabelledFeatures) -> Answers:
        """Classify by the chosen head.

        Raises:
            UserError: If it diverged in the last epoch.
        """
        answers = score_heads(self.state.trainer.heads, features, self.scaling)[self.chosen]
        if answers is None:
            raise UserError(_DIVERGED)
        return answers


def choose_head(
    state: ProbeState, scaling: Callable[[Tensor], Tensor], held_out: LabelledFeatures | None
) -> Probe:
    """Take the head that is best on held-out features, or else the only one.

    Args:
        state: The heads after the last epoch.
        scaling: Maps the backbone's features to the heads' input.
        held_out: Features of training images that no head was trained on; None for one head.

    Raises:
        UserError: If all heads diverged.
    """
    if held_out is None:
        details = {"loss_by_epoch": [losses[0] for losses in state.losses]}
        return Probe(state, scaling, 0, details | _noticed(state, 0))
    answers = score_heads(state.trainer.heads, held_out, scaling)
    counts = [None if own is None else own.counts for own in answers]
    return _choose(state, scaling, counts)


def _choose(
    state: ProbeState, scaling: Callable[[Tensor], Tensor], held_out: list[TopKCounts | None]
) -> Probe:
    """Choose the head most accurate on the held-out images; ties go to the first."""
    usable = {number: counts for number, counts in enumerate(held_out) if counts is not None}
    if not usable:
        raise UserError(_DIVERGED)
    chosen = max(usable, key=lambda number: usable[number].top1)
    losses = [list(by_epoch) for by_epoch in zip(*state.losses, strict=True)]
    rates = state.trainer.probe.base_lr
    details = {
        "loss_by_epoch": losses[chosen],
        "chosen_base_lr": rates[chosen],
        "num_held_out_images": usable[chosen].total,
        "heads": [
            {
                "base_lr": base_lr,
                "held_out_top1": None if counts is None else counts.top1_percent,
                "loss_by_epoch": own_losses,
            }
            for base_lr, counts, own_losses in zip(rates, held_out, losses, strict=True)
        ],
    }
    return Probe(state, scaling, chosen, details | _noticed(state, chosen))


def _noticed(state: ProbeState, head: int) -> dict[str, list[str]]:
    """Return the warnings of a trained head for the record, and log them."""
    num_classes = state.trainer.heads.bias.shape[1]
    found = probe_warnings(state.losses[-1][head], num_classes, head, state.trainer.probe.base_lr)
    for text in found:
        _log.warning("%s", text)
    return {WARNINGS: found} if found else {}
