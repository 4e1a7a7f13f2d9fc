"""Plan batches in a background thread, a few ahead of the one in use."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")

# Items that are made or being made beside the one in use.
NUM_AHEAD = 2

_END: Any = object()


def planned_ahead(
    items: Generator[Item, None, None], device: torch.device
) -> Generator[Item, None, None]:
    """Make the items in the background for a GPU; for a CPU, which trains, when requested."""
    return in_background(items) if device.type == "cuda" else items


def in_background(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Yield the items in their order, made in a thread.

    An error is raised in place of the item that it prevents. Closing the generator ends the thread
    as soon as the item that it is making is made, and closes ``items``.

    Args:
        items: Its first item is made in the calling thread: the processes that it may start belong
            to the thread that receives signals.
    """
    thread = ThreadPoolExecutor(1, "views")
    try:
        item = next(items, _END)
        ahead = deque(thread.submit(next, items, _END) for _ in range(NUM_AHEAD))
        while item is not _END:
            yield item
            item = ahead.popleft().result()
            ahead.append(thread.submit(next, items, _END))
    finally:
        thread.shutdown(cancel_futures=True)
        items.close()
