"""Prepare batches on the device while the previous step runs."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TypeVar

import torch
from torch import Tensor

from rsa_pretrain.training.profiling import part

Loaded = TypeVar("Loaded")

# Views, each (N, 3, S, S), and labels (N,), on the device.
Ready = tuple[list[Tensor], Tensor]


def prefetched(
    loaded: Generator[Loaded, None, None],
    prepare: Callable[[Loaded], Ready],
    device: torch.device,
) -> Generator[Ready, None, None]:
    """Prepare batches for the device, in their order.

    On a GPU, ``prepare`` queues its copies and kernels on a separate stream, one batch ahead of
    the requested one. Elsewhere a batch is prepared when it is requested.

    Args:
        loaded: Batches in host memory; closed at the end.
        prepare: Makes views and labels on the device from one batch.
        device: Device of the prepared batches.
    """

    def make_ready(batch: Loaded) -> Ready:
        with part("views"):
            return prepare(batch)

    with closing(loaded):
        ready = map(make_ready, loaded)
        yield from _ahead(ready, device) if device.type == "cuda" else ready


def _ahead(ready: Iterator[Ready], device: torch.device) -> Iterator[Ready]:
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # The source of the first batch may still be on its way to the device.
    side.wait_stream(torch.cuda.current_stream(device))

    def queue_next() -> tuple[Ready | None, torch.cuda.Event]:
        with torch.cuda.stream(side):
            return next(ready, None), side.record_event()

    batch, made = queue_next()
    while batch is not None:
        following = queue_next()
        step = torch.cuda.current_stream(device)
        step.wait_event(made)
        for tensor in (*batch[0], batch[1]):
            # Its memory belongs to the side stream, which must not reuse it before the step.
            tensor.record_stream(step)
        yield batch
        batch, made = following
