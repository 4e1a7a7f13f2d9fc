"""What a run adds to detectron2's training loop: metrics, evaluation, a clean stop."""

import signal
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import PreciseBN
from detectron2.utils.events import get_event_storage
from torch import nn

from detection.coco_eval import Prediction
from detection.samples import step_seed
from rsa_pretrain.distributed import StopVote, rank
from rsa_pretrain.metrics_log import MetricsLog
from rsa_pretrain.progress import progress_bar
from rsa_pretrain.stop_signal import StopSignal

_TOTAL = "total_loss"


class SeedHook(HookBase):  # type: ignore[misc]
    """Lets what a step draws, anchors and regions, depend on the seed and its number alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_step(self) -> None:
        """Seed torch's generators."""
        torch.manual_seed(step_seed(self._seed, self.trainer.iter, rank()))


class PreciseNormHook(PreciseBN):  # type: ignore[misc]
    """detectron2's precise BN, each time on the same batches."""

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
    """Writes the losses, averaged since the last line, and the rate; shows the progress."""

    def __init__(self, log: MetricsLog, every_iterations: int, batch_size: int) -> None:
        self._log = log
        self._every = every_iterations
        self._batch_size = batch_size
        self._num_averaged = 0

    def before_train(self) -> None:
        """Show the progress so far."""
        images = (self._batch_size * n for n in (self.trainer.max_iter, self.trainer.start_iter))
        total, done = images
        self._bar = progress_bar(total, "fine-tuning", "img", done)

    def after_step(self) -> None:
        """Count one iteration; write a line when it is time."""
        step = self.trainer.iter + 1
        self._num_averaged += 1
        latest = get_event_storage().latest()
        self._bar.set_postfix(loss=f"{latest[_TOTAL][0]:.3f}", refresh=False)
        self._bar.update(self._batch_size)
        if step % self._every == 0 or step == self.trainer.max_iter:
            self._write(step)

    def after_train(self) -> None:
        """Write what a stop left unwritten."""
        if self._num_averaged:
            self._write(self.trainer.iter + 1)
        self._bar.close()

    def _write(self, step: int) -> None:
        histories = get_event_storage().histories()
        losses = {
            "loss" if name == _TOTAL else name: float(history.avg(self._num_averaged))
            for name, history in histories.items()
            if name == _TOTAL or name.startswith("loss_")
        }
        self._log.write(step, losses | {"lr": float(histories["lr"].latest())})
        self._num_averaged = 0


class EvaluationHook(HookBase):  # type: ignore[misc]
    """Evaluates on the way; the end is evaluated with the finished run."""

    def __init__(
        self,
        detect: Callable[[], list[Prediction]],
        evaluate: Callable[[list[Prediction]], dict[str, float]],
        every_iterations: int,
        log: MetricsLog | None,
    ) -> None:
        self._detect = detect
        self._evaluate = evaluate
        self._every = every_iterations
        self._log = log

    def after_step(self) -> None:
        """Detect in all processes when it is time; the main one has the log and evaluates."""
        step = self.trainer.iter + 1
        if step % self._every == 0 and step != self.trainer.max_iter:
            predictions = self._detect()
            if self._log is not None:
                self._log.write(step, self._evaluate(predictions))


class Stopped(BaseException):
    """Ends detectron2's loop from within; not an error, so that it is not logged as one."""


class StopHook(HookBase):  # type: ignore[misc]
    """Saves and leaves when a process was asked to stop; comes last."""

    def __init__(self, stop: StopSignal, save: Callable[[str], None]) -> None:
        self._stop = stop
        self._save = save
        self._vote = StopVote()

    def after_step(self) -> None:
        """Ask all processes."""
        received: signal.Signals | None = self._vote.agree(self._stop.received)
        if received is not None and self.trainer.iter + 1 < self.trainer.max_iter:
            self._save(f"model_{self.trainer.iter:07d}")
            self._stop.received = received
            raise Stopped
