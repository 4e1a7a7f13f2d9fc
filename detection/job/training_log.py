"""Log a run's losses, rates and progress alike in all engines, without waiting for the device."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from detection.job.job import Job
from rsa_pretrain.plumbing.distributed import is_main, mean_over_ranks, world_size
from rsa_pretrain.plumbing.errors import UserError
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

    Losses may be tensors, which are read together when a line is due: reading each iteration's
    would wait for the device. A loss that stops being finite is therefore noticed only then.

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
        self._run_dir = run_dir
        self._unread: list[tuple[int, Mapping[str, Tensor | float]]] = []
        self._log = self.enter_context(MetricsLog(run_dir, start)) if is_main() else None
        total, done = self._num_iterations * size, start * size
        self._bar = self.enter_context(progress_bar(total, "fine-tuning", "img", done))
        self._meter = Meter(job.device, size)
        self.push(self._write_rest)

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches and measure the time spent waiting for each."""
        return self._meter.timed(batches)

    def paused(self) -> AbstractContextManager[None]:
        """Exclude the block's time from the rates."""
        return self._meter.paused()

    def add_step(self, step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Add one iteration; write a line when it is due.

        Args:
            step: Iterations taken so far.
            metrics: Losses, ``loss`` among them, and the rate; tensors are this process's.

        Raises:
            UserError: If a line is due and one of its iterations has a loss that is not finite.
        """
        self._unread.append((step, metrics))
        self._bar.update(self._solver.batch_size)
        periods = self._training.log_every_iterations, self._training.checkpoint_every_iterations
        due = step == self._num_iterations or any(step % period == 0 for period in periods)
        if due or not any(isinstance(value, Tensor) for value in metrics.values()):
            self.catch_up()
        if due:
            self._write_means()

    def catch_up(self) -> None:
        """Wait for the iterations added so far and read their losses.

        Raises:
            UserError: If one is not finite; the iterations before it count.
        """
        unread, self._unread = self._unread, []
        numbers = _read([metrics for _, metrics in unread])
        for (step, _), metrics in zip(unread, numbers, strict=True):
            if not math.isfinite(metrics["loss"]):
                raise UserError(
                    f"the loss is {metrics['loss']} at iteration {step - 1}; earlier checkpoints "
                    f"are in '{self._run_dir}'; lower solver.base_lr or warm up longer"
                )
            self._step = step
            self._meter.add(metrics)
            self._meter.count_step()
            self._bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a separate line, such as average precision."""
        if self._log is not None:
            self._log.write(step, metrics)

    def _write_rest(self, error: type[BaseException] | None, *_: object) -> None:
        """Write what a stop, or an error, has left between two lines."""
        if error is not None and world_size() > 1:
            self._unread.clear()  # the other processes would not take part in averaging
        with nullcontext() if error is None else suppress(UserError):
            self.catch_up()
        if self._meter.num_steps:
            self._write_means()

    def _write_means(self) -> None:
        means = self._meter.read()
        seconds = self._solver.batch_size / means["images_per_second"]
        means["seconds_per_iteration"] = seconds
        means["eta_seconds"] = seconds * (self._num_iterations - self._step)
        if self._device.type == "cuda":
            means["gpu_memory_gib"] = torch.cuda.max_memory_reserved(self._device) / 2**30
        self.write(self._step, means)


def _read(steps: Sequence[Mapping[str, Tensor | float]]) -> list[dict[str, float]]:
    """Return metrics as numbers, tensors averaged over the processes."""
    tensors = [value for step in steps for value in step.values() if isinstance(value, Tensor)]
    numbers = iter(mean_over_ranks(torch.stack(tensors)).tolist() if tensors else ())
    return [
        {key: next(numbers) if isinstance(value, Tensor) else value for key, value in step.items()}
        for step in steps
    ]
