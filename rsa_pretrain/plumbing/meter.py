"""Average metrics between two lines of a run's log, without waiting for the device."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from rsa_pretrain.plumbing.distributed import mean_over_ranks
from rsa_pretrain.plumbing.torch_internals import foreach_add_

T = TypeVar("T")

# On a CPU in seconds; on a GPU the moment it gets there, for which the CPU need not wait.
_Moment = float | torch.cuda.Event


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
        tensors: dict[str, Tensor] = {}
        for name, value in metrics.items():
            if isinstance(value, Tensor):
                tensors[name] = value
                if name not in self._tensors:
                    self._tensors[name] = torch.zeros((), device=self._device)
            else:
                self._floats[name] = self._floats.get(name, 0.0) + weight * value
        if tensors:
            sums = [self._tensors[name] for name in tensors]
            foreach_add_(sums, list(tensors.values()), alpha=weight)

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
        return self.begin_reading()()

    def begin_reading(
        self, latest: Mapping[str, Tensor] | None = None
    ) -> Callable[[], dict[str, float]]:
        """Reset, and return a function that waits for the means that ``read`` returns.

        Until it is called, a GPU copies the numbers to the CPU and keeps working.

        Args:
            latest: Scalars of the last step, to be read with the means.
        """
        latest, num_steps = latest or {}, self.num_steps
        values = list(latest.values())
        if self._tensors:
            values += mean_over_ranks(torch.stack(list(self._tensors.values()))).unbind()
        on_host = torch.stack(values).to("cpu", non_blocking=True) if values else torch.empty(0)
        tensors, floats, waited, start = self._tensors, self._floats, self._waited, self._start
        paused, end = self._paused, _now(self._device)

        def finish() -> dict[str, float]:
            seconds = _seconds_between(start, end) - paused
            numbers = on_host.tolist()
            means = {name: total / num_steps for name, total in floats.items()}
            for name, total in zip(tensors, numbers[len(latest) :], strict=True):
                means[name] = total / num_steps
            means["images_per_second"] = num_steps * self._images_per_step / seconds
            means["data_wait"] = waited / seconds
            return means | dict(zip(latest, numbers, strict=False))

        self._reset()
        return finish

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the block from the rates; it must not read the meter."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - begun

    def restart_clock(self) -> None:
        """Exclude the time since the last reading from the rates."""
        self._start = _now(self._device)
        self._paused = 0.0

    def _reset(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._floats: dict[str, float] = {}
        self.num_steps = 0
        """Steps since the last reading."""
        self._waited = 0.0
        self.restart_clock()


def _now(device: torch.device) -> _Moment:
    if device.type != "cuda":
        return time.monotonic()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds_between(start: _Moment, end: _Moment) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1e3
    assert isinstance(start, float)
    assert isinstance(end, float)
    return end - start
