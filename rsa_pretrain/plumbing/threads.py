"""Map a function over many items in threads, with a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rsa_pretrain.plumbing.progress import progress_bar

Item = TypeVar("Item")
Output = TypeVar("Output")

_BLOCK = 4096


def map_in_threads(
    function: Callable[[Item], Output], items: Sequence[Item], label: str, unit: str
) -> Iterator[Output]:
    """Yield the results in the items' order; Pillow decodes outside the interpreter lock.

    Args:
        function: Function of one item.
        items: Its arguments; a million are fine, they are processed in blocks.
        label: Title of the progress bar.
        unit: Name of an item.
    """
    with ThreadPoolExecutor() as pool, progress_bar(len(items), label, unit) as bar:
        for start in range(0, len(items), _BLOCK):
            for result in pool.map(function, items[start : start + _BLOCK]):
                bar.update()
                yield result
