"""A fixed sequence of RGB images with optional labels."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from rsa_pretrain.errors import UserError


class ImageSet(Dataset[Image.Image]):
    """Images read on demand from sources: array rows or files.

    Args:
        name: Data set's name.
        sources: One source per image.
        read: Source to RGB image.
        labels: One class index per image, or None if the images are unlabelled.
        class_names: Names by class index; empty if unlabelled.
    """

    def __init__(
        self,
        name: str,
        sources: Sequence[Any],
        read: Callable[[Any], Image.Image],
        labels: list[int] | None,
        class_names: list[str],
    ) -> None:
        self.name = name
        self.sources = sources
        self.read = read
        self.labels = labels
        self.class_names = class_names

    @classmethod
    def from_array(
        cls, name: str, array: npt.NDArray[np.uint8], labels: list[int], class_names: list[str]
    ) -> Self:
        """Wrap images in memory, uint8 (N, H, W, 3)."""
        return cls(name, array, Image.fromarray, labels, class_names)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Image.Image:
        return self.read(self.sources[index])

    def require_labels(self) -> list[int]:
        """Return the labels.

        Raises:
            UserError: If the images are unlabelled.
        """
        if self.labels is None:
            raise UserError(
                f"the {self.name} images have no classes: some lie directly in the split's "
                "folder; an evaluation needs one folder per class"
            )
        return self.labels

    def fingerprint(self) -> str:
        """Return a SHA-256 of the images and labels (of files: path end and size)."""
        digest = hashlib.sha256(f"{self.name} {len(self)} {self.labels}".encode())
        if isinstance(self.sources, np.ndarray):
            digest.update(np.ascontiguousarray(self.sources).data)
        else:
            for path in self.sources:
                assert isinstance(path, Path)
                digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def balanced_subset(self, count: int, seed: int) -> "ImageSet":
        """Return a random subset, in the original order, with equal class counts up to one.

        Raises:
            UserError: If there are not enough images, in all or of a class.
        """
        if count > len(self):
            raise UserError(f"asked for {count} images of {self.name}, which has {len(self)}")
        generator = np.random.default_rng(seed)
        labels = np.asarray(self.labels if self.labels is not None else [0] * len(self))
        classes = np.unique(labels)
        share, extra = divmod(count, len(classes))
        chosen: list[int] = []
        for position, label in enumerate(classes):
            wanted = share + (position < extra)
            members = np.flatnonzero(labels == label)
            if wanted > len(members):
                raise UserError(
                    f"a balanced subset of {count} needs {wanted} images of class {label} of "
                    f"{self.name}, which has {len(members)}"
                )
            chosen += generator.choice(members, wanted, replace=False).tolist()
        chosen.sort()
        sources: Sequence[Any]
        if isinstance(self.sources, np.ndarray):
            sources = self.sources[chosen]
        else:
            sources = [self.sources[index] for index in chosen]
        kept = None if self.labels is None else [self.labels[index] for index in chosen]
        return ImageSet(self.name, sources, self.read, kept, self.class_names)
