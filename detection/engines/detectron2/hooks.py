"""Extend detectron2's training loop with metrics, evaluation and a clean stop."""

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import PreciseBN
from detectron2.utils.events import get_event_storage
from torch import nn

from detection.coco.evaluation import Prediction
from detection.feeding.samples import step_seed
from detection.job.evaluations import Evaluations
from detection.job.training_log import TrainingLog
from rsa_pretrain.plumbing.distributed import StopVote, rank
from rsa_pretrain.plumbing.stop_signal import StopSignal


class SeedHook(HookBase):  # type: ignore[misc]
    """Makes a step's sampling of anchors and regions depend on the seed and its index alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_step(self) -> None:
        """Seed torch's generators."""
        torch.manual_seed(step_seed(self._seed, self.trainer.iter, rank()))


class PreciseNormHook(PreciseBN):  # type: ignore[misc]
    """detectron2's precise BN, always on the same batches."""

    def __init__(
        self,
        period: int,
        model: nn.Module,
        batches: Callable[[], Generator[Any, None, None]],
        num_batches: int,
    ) -> None:
        super().__init__(period, model, None, num_batches)
        self._batches = batches

    def update_stats(self) -> None:
        """Average the statistics of the first batches."""
        with closing(self._batches()) as self._data_iter:
            super().update_stats()


class MetricsHook(HookBase):  # type: ignore[misc]
    """Logs each step's losses and rate; the clock is paused while the later hooks run."""

    def __init__(self, log: TrainingLog) -> None:
        self._log = log
        self._between_steps = ExitStack()

    def before_step(self) -> None:
        """Resume the clock."""
        self._between_steps.close()

    def after_step(self) -> None:
        """Add the step, then stop the clock."""
        metrics = {
            "loss" if name == "total_loss" else name: float(value)
            for name, (value, _) in get_event_storage().latest().items()
            if name in ("total_loss", "lr") or name.startswith("loss_")
        }
        self._log.add_step(self.trainer.iter + 1, metrics)
        self._between_steps.enter_context(self._log.paused())

    def after_train(self) -> None:
        """Resume the clock."""
        self._between_steps.close()


class EvaluationHook(HookBase):  # type: ignore[misc]
    """Evaluates during training."""

    def __init__(
        self, evaluations: Evaluations, detect: Callable[[], Sequence[Prediction]]
    ) -> None:
        self._evaluations = evaluations
        self._detect = detect

    def after_step(self) -> None:
        """Detect in all processes when an evaluation is due."""
        step = self.trainer.iter + 1
        if self._evaluations.due(step):
            self._evaluations.take(step, self._detect())


class LoopStopped(BaseException):
    """Ends detectron2's loop from within; not an Exception, so it is not logged as an error."""


class StopHook(HookBase):  # type: ignore[misc]
    """Saves and stops when any process was asked to; must be the last hook."""

    def __init__(self, stop: StopSignal, save: Callable[[str], None]) -> None:
        self._stop = stop
        self._save = save
        self._vote = StopVote()

    def after_step(self) -> None:
        """Agree with all processes on stopping."""
        received: signal.Signals | None = self._vote.agree(self._stop.received)
        if received is not None and self.trainer.iter + 1 < self.trainer.max_iter:
            self._save(f"model_{self.trainer.iter:07d}")
            self._stop.received = received
            raise LoopStopped
