"""Read the pixels of batches of images, as the backbone is to see them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from rsa_eval.features.transforms import SquareTransform
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import FileSources, PixelSources
from rsa_pretrain.data.loader import iterate, make_loader

_BATCHES_AHEAD = 2


class Squares(Dataset[Tensor]):
    """The squares of images, before normalisation: uint8 (S, S, 3).

    Args:
        images: Source.
        geometry: Makes a square of an RGB image.
    """

    def __init__(self, images: ImageSet, geometry: v2.Transform) -> None:
        self.images = images
        self.geometry = geometry

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.geometry(self.images[index])))


class Load(Protocol):
    """A way to load batches of squares."""

    def __call__(
        self, squares: Squares, batches: Sequence[range], num_workers: int, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield the batches in host memory, uint8 (n, S, S, 3).

        Args:
            squares: All of them.
            batches: Rows of each batch.
            num_workers: Squares made at the same time, beside the main process.
            device: Where the batches go.
        """


def in_processes(
    squares: Squares, batches: Sequence[range], num_workers: int, device: torch.device
) -> Iterator[Tensor]:
    """Load in loader processes, the fastest way for many images."""
    return iterate(make_loader(squares, [list(batch) for batch in batches], num_workers, device))


def in_threads(
    squares: Squares, batches: Sequence[range], num_workers: int, device: torch.device
) -> Iterator[Tensor]:
    """Load in threads, which start at once; Pillow works outside the interpreter lock."""
    if num_workers == 0:
        yield from in_processes(squares, batches, 0, device)
        return
    waiting: deque[list[Future[Tensor]]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for batch in batches:
                waiting.append([pool.submit(squares.__getitem__, row) for row in batch])
                if len(waiting) > _BATCHES_AHEAD:
                    yield _stacked(waiting.popleft())
            while waiting:
                yield _stacked(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _stacked(squares: list[Future[Tensor]]) -> Tensor:
    return torch.stack([square.result() for square in squares])


def pixel_batches(
    images: ImageSet,
    transform: SquareTransform,
    batches: Sequence[range],
    num_workers: int,
    device: torch.device,
    load: Load,
) -> Iterator[Tensor]:
    """Yield batches of squares in host memory, uint8 (n, S, S, 3).

    Images that are stored as pixels of the right size are taken as they are; nothing is loaded.

    Args:
        images: Source.
        transform: Makes the squares.
        batches: Rows of each batch.
        num_workers: Squares made at the same time, beside the main process.
        device: Where the batches go.
        load: How to load images that are files, or of another size.

    Raises:
        UserError: If an image cannot be read.
    """
    if _are_squares(images, transform):
        return _stored_pixels(images, batches)
    return load(Squares(images, transform.geometry), batches, num_workers, device)


def _are_squares(images: ImageSet, transform: SquareTransform) -> bool:
    sources = images.sources
    if isinstance(sources, FileSources) or not isinstance(sources, PixelSources):
        return False
    _, height, width, _ = sources.array(images.rows[:1]).shape
    return transform.keeps(height, width)


def _stored_pixels(images: ImageSet, batches: Sequence[range]) -> Iterator[Tensor]:
    assert isinstance(images.sources, PixelSources)
    for batch in batches:
        yield torch.from_numpy(images.sources.array(images.rows[batch.start : batch.stop]))
