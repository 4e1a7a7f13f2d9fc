"""Log a run's losses, rates and progress alike in all engines."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

import torch

from detection.job.job import Job
from rsa_pretrain.plumbing.distributed import is_main
from rsa_pretrain.plumbing.meter import Meter
from rsa_pretrain.plumbing.metrics_log import MetricsLog
from rsa_pretrain.plumbing.progress import progress_bar

T = TypeVar("T")


class TrainingLog(ExitStack):
    """Writes one run's ``metrics.jsonl`` and progress bar, in the main process.

    A line is the mean over the iterations since the last one, of the losses and the rate, with

        seconds_per_iteration    without evaluating, refreshing statistics and saving
        images_per_second        likewise, of all processes
        data_wait                share of that time in which this process waited for images
        eta_seconds              of the iterations left, at this line's pace
        gpu_memory_gib           peak torch memory since the command started; on a GPU only

    Args:
        job: The run.
        run_dir: Run folder.
        start: Iterations already taken.
    """

    def __init__(self, job: Job, run_dir: Path, start: int) -> None:
        super().__init__()
        self._solver, self._training = job.recipe.solver, job.recipe.training
        self._device = job.device
        self._num_iterations = self._solver.schedule.iterations
        self._step = start
        size = self._solver.batch_size
        self._log = self.enter_context(MetricsLog(run_dir, start)) if is_main() else None
        total, done = self._num_iterations * size, start * size
        self._bar = self.enter_context(progress_bar(total, "fine-tuning", "img", done))
        self._meter = Meter(job.device, size)
        self.callback(self._write_rest)

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches and measure the time spent waiting for each."""
        return self._meter.timed(batches)

    def paused(self) -> AbstractContextManager[None]:
        """Exclude the block's time from the rates."""
        return self._meter.paused()

    def add_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one iteration; write a line when it is due.

        Args:
            step: Iterations taken so far.
            metrics: Losses, ``loss`` among them, and the rate.
        """
        self._step = step
        self._meter.add(metrics)
        self._meter.count_step()
        self._bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
        self._bar.update(self._solver.batch_size)
        periods = self._training.log_every_iterations, self._training.checkpoint_every_iterations
        if step == self._num_iterations or any(step % period == 0 for period in periods):
            self._write_means()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a separate line, such as average precision."""
        if self._log is not None:
            self._log.write(step, metrics)

    def _write_rest(self) -> None:
        if self._meter.num_steps:  # a stop, or an error, between two lines
            self._write_means()

    def _write_means(self) -> None:
        means = self._meter.read()
        seconds = self._solver.batch_size / means["images_per_second"]
        means["seconds_per_iteration"] = seconds
        means["eta_seconds"] = seconds * (self._num_iterations - self._step)
        if self._device.type == "cuda":
            means["gpu_memory_gib"] = torch.cuda.max_memory_reserved(self._device) / 2**30
        self.write(self._step, means)
