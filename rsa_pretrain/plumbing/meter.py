"""Average metrics between two lines of a run's log, without waiting for the device."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from rsa_pretrain.plumbing.distributed import mean_over_ranks

T = TypeVar("T")


class Meter:
    """Sums metrics step by step and reads their means once.

    Args:
        device: Device on which tensors are summed.
        images_per_step: Images of all processes, for the rate.
    """

    def __init__(self, device: torch.device, images_per_step: int) -> None:
        self._device = device
        self._images_per_step = images_per_step
        self._reset()

    def add(self, metrics: Mapping[str, Tensor | float], weight: float = 1.0) -> None:
        """Add one step's metrics, or a part of them with its share as weight.

        Tensors are summed on their device: reading them would wait for the step to finish.
        """
        for name, value in metrics.items():
            if isinstance(value, Tensor):
                if name not in self._tensors:
                    self._tensors[name] = torch.zeros((), device=self._device)
                self._tensors[name].add_(value, alpha=weight)
            else:
                self._floats[name] = self._floats.get(name, 0.0) + weight * value

    def count_step(self) -> None:
        """Note that a step has ended."""
        self.num_steps += 1

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches, and measure the wait for each."""
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def read(self) -> dict[str, float]:
        """Return the means since the last reading, averaged over the processes, and reset.

        They include ``images_per_second`` of all processes, and ``data_wait``, the share of the
        time that this process waited for images.
        """
        means = {name: total / self.num_steps for name, total in self._floats.items()}
        if self._tensors:
            totals = mean_over_ranks(torch.stack(list(self._tensors.values())))
            for name, total in zip(self._tensors, totals.tolist(), strict=True):
                means[name] = total / self.num_steps
        seconds = time.monotonic() - self._start
        means["images_per_second"] = self.num_steps * self._images_per_step / seconds
        means["data_wait"] = self._waited / seconds
        self._reset()
        return means

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block from the rates; it must not read the meter."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - begun

    def restart_clock(self) -> None:
        """Exclude the time since the last reading from the rates."""
        self._start = time.monotonic()

    def _reset(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._floats: dict[str, float] = {}
        self.num_steps = 0
        """Steps since the last reading."""
        self._waited = 0.0
        self.restart_clock()
