"""Prepare batches on the device while the previous step runs."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from rsa_pretrain.training.profiling import part

Loaded = TypeVar("Loaded")

# Passes an iterator on, and measures the wait for each item.
Timed = Callable[[Iterator[Any]], Iterator[Any]]


class Ready(NamedTuple):
    """A batch on the device.

    Attributes:
        views: Each (N, 3, S, S).
        labels: int64 (N,), or None for a method that does not read them.
    """

    views: list[Tensor]
    labels: Tensor | None


def prefetched(
    loaded: Generator[Loaded, None, None],
    prepare: Callable[[Loaded], list[Ready]],
    device: torch.device,
    timed: Timed,
) -> Generator[Ready, None, None]:
    """Prepare batches for the device, in their order.

    On a GPU, ``prepare`` queues its copies and kernels on a separate stream, a block of batches at
    a time: the next block as soon as the first batch of the present one has been used, so a step
    is launched before the views of later ones. Elsewhere a block is prepared when it is requested.

    Args:
        loaded: Blocks in host memory; closed at the end.
        prepare: Makes the batches of a block on the device.
        device: Device of the batches.
        timed: Measures waiting: on a GPU for ``loaded``, elsewhere for the batches, since making
            views keeps the CPU from training.
    """

    def make_ready(block: Loaded) -> list[Ready]:
        with part("views"):
            return prepare(block)

    with closing(loaded):
        if device.type == "cuda":
            yield from _ahead(map(make_ready, timed(loaded)), device)
        else:
            yield from timed(chain.from_iterable(map(make_ready, loaded)))


def _ahead(blocks: Iterator[list[Ready]], device: torch.device) -> Iterator[Ready]:
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # The source of the first batch may still be on its way to the device.
    side.wait_stream(torch.cuda.current_stream(device))

    def queue_next() -> Iterator[Ready]:
        with torch.cuda.stream(side):
            batches = next(blocks, [])
            made = side.record_event()
        return (_received(batch, made, device) for batch in batches)

    batches = queue_next()
    while (first := next(batches, None)) is not None:
        yield first
        following = queue_next()
        yield from batches
        batches = following


def _received(batch: Ready, made: torch.cuda.Event, device: torch.device) -> Ready:
    """Make the current stream wait for a batch, and its memory wait for the stream."""
    step = torch.cuda.current_stream(device)
    step.wait_event(made)
    for tensor in batch.views if batch.labels is None else [*batch.views, batch.labels]:
        # Batches are slices of their block, whose memory belongs to the side stream; it must not be
        # reused before the last step that reads from it.
        tensor.record_stream(step)
    return batch
