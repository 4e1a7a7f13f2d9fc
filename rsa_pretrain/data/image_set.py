"""Represent a fixed sequence of RGB images with optional labels."""

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.image_sources import (
    BROKEN_REMEDY,
    FileSources,
    PixelArray,
    PixelSources,
    Sources,
    read_encoded,
    rules_identity,
)
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

# The label of an image without a class in a set where others have one (STL-10's train+unlabeled).
UNLABELLED = -1

_WHY_UNLABELLED = "they are directly in the split's folder, or were published without"


class ImageSet(Dataset[Image.Image]):
    """Images read on demand.

    Args:
        name: Data set's name.
        sources: Where the images come from.
        labels: One class index per image (``UNLABELLED`` for none), or None if no image has one.
        class_names: Names by class index; empty if unlabelled.
        rows: Which sources to use, in which order; None uses all.
        why_unlabelled: Why some have no class, for errors.
    """

    def __init__(
        self,
        name: str,
        sources: Sources,
        labels: list[int] | None,
        class_names: list[str],
        rows: npt.NDArray[np.int64] | None = None,
        why_unlabelled: str = _WHY_UNLABELLED,
    ) -> None:
        self.name = name
        self.sources = sources
        self.labels = labels
        self.class_names = class_names
        self.rows = np.arange(len(sources)) if rows is None else rows
        self.why_unlabelled = why_unlabelled
        assert labels is None or len(labels) == len(self.rows)

    @classmethod
    def from_array(
        cls, name: str, array: npt.NDArray[np.uint8], labels: list[int], class_names: list[str]
    ) -> Self:
        """Wrap images in memory, uint8 (N, H, W, 3)."""
        return cls(name, PixelArray(array, name), labels, class_names)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Image.Image:
        return self.read(index)[0]

    def read(self, index: int) -> tuple[Image.Image, str]:
        """Decode one image as RGB, and return it with the name of its stored mode.

        Raises:
            UserError: If it cannot be decoded.
        """
        return self.sources.read(int(self.rows[index]))

    def where(self, index: int) -> str:
        """Return a readable name of an image."""
        return self.sources.where(int(self.rows[index]))

    def keys(self) -> list[str]:
        """Return a unique name of each image, the same wherever the set is stored."""
        return [self.sources.key(row) for row in self.rows.tolist()]

    def labels_of(self, indices: Sequence[int]) -> Tensor:
        """Return int64 labels (N,), ``UNLABELLED`` where there are none."""
        if self.labels is None:
            return torch.full((len(indices),), UNLABELLED)
        return torch.tensor([self.labels[index] for index in indices])

    def array(self) -> npt.NDArray[np.uint8]:
        """Return all pixels of a set of ``PixelSources``, uint8 (N, H, W, 3).

        Raises:
            UserError: If an image cannot be decoded.
        """
        assert isinstance(self.sources, PixelSources)
        return self.sources.array(self.rows)

    def encoded(self, index: int, remedy: str = BROKEN_REMEDY) -> EncodedImage:
        """Read one image's file, in a set of ``FileSources``.

        Args:
            index: Number of the image.
            remedy: What to do if it is broken, for errors.

        Raises:
            UserError: If it cannot be read.
        """
        assert isinstance(self.sources, FileSources)
        return read_encoded(self.sources, int(self.rows[index]), remedy)

    @property
    def is_labelled(self) -> bool:
        """Return whether each image has a class."""
        return self.labels is not None and UNLABELLED not in self.labels

    def require_labels(self) -> list[int]:
        """Return the labels.

        Raises:
            UserError: If an image is unlabelled.
        """
        if self.labels is None or UNLABELLED in self.labels:
            labels = self.labels_of(range(len(self)))
            without = [
                self.where(index) for index in (labels == UNLABELLED).nonzero()[:, 0].tolist()
            ]
            raise UserError(
                f"{len(without):,} of {len(self):,} {self.name} images have no classes: "
                f"{first_of(without)}; "
                f"{self.why_unlabelled}; an evaluation needs one class per image"
            )
        return self.labels

    def fingerprint(self) -> str:
        """Return a SHA-256 of the labels and of each image's identity."""
        digest = hashlib.sha256(f"{self.name} {len(self)} {self.labels}".encode())
        if isinstance(self.sources, FileSources):
            digest.update(rules_identity(self.sources.rules))
        for row in self.rows.tolist():
            digest.update(self.sources.identity(row))
        return digest.hexdigest()

    def select(self, indices: npt.NDArray[np.int64]) -> "ImageSet":
        """Return the images with these indices, in the order of the indices."""
        kept = None if self.labels is None else [self.labels[index] for index in indices]
        rows = self.rows[indices]
        return ImageSet(self.name, self.sources, kept, self.class_names, rows, self.why_unlabelled)

    def labelled(self) -> "ImageSet":
        """Return the images that have a class, in the original order."""
        return self.select(self._labelled_indices())

    def balanced_subset(self, count: int, seed: int) -> "ImageSet":
        """Return a random subset, in the original order, with equal class counts up to one.

        A set with unlabelled images counts as one class.

        Raises:
            UserError: If there are not enough images, in total or of a class.
        """
        labels = np.zeros(len(self), np.int64)
        if self.labels is not None and UNLABELLED not in self.labels:
            labels = np.asarray(self.labels)
        return self.select(self._balanced_choice(labels, np.arange(len(self)), count, seed))

    def random_subset(self, count: int, seed: int) -> "ImageSet":
        """Return ``count`` images drawn regardless of class, in the original order."""
        generator = np.random.default_rng(seed)
        return self.select(np.sort(generator.choice(len(self), count, replace=False)))

    def hold_out(self, count: int, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """Split off a random slice, with equal class counts up to one.

        Unlabelled images are never held out. Both parts keep the original order.

        Returns:
            The rest, and the images held out.

        Raises:
            UserError: If no image is labelled, not enough are, or nothing would be left.
        """
        candidates = self._labelled_indices()
        if not len(candidates):
            raise UserError(f"cannot hold out {self.name} images by class: none has a class")
        if count >= len(self):
            raise UserError(
                f"holding out {count} of {len(self)} {self.name} images leaves nothing; hold out "
                "fewer"
            )
        labels = np.asarray(self.labels)[candidates]
        held_out = self._balanced_choice(labels, candidates, count, seed)
        rest = np.setdiff1d(np.arange(len(self)), held_out)
        return self.select(rest), self.select(held_out)

    def _labelled_indices(self) -> npt.NDArray[np.int64]:
        if self.labels is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(np.asarray(self.labels) != UNLABELLED)

    def _balanced_choice(
        self,
        labels: npt.NDArray[np.int64],
        candidates: npt.NDArray[np.int64],
        count: int,
        seed: int,
    ) -> npt.NDArray[np.int64]:
        if count > len(candidates):
            raise UserError(f"asked for {count} images of {self.name}, which has {len(candidates)}")
        generator = np.random.default_rng(seed)
        classes = np.unique(labels)
        share, extra = divmod(count, len(classes))
        chosen: list[int] = []
        for position, label in enumerate(classes):
            wanted = share + (position < extra)
            members = candidates[labels == label]
            if wanted > len(members):
                raise UserError(
                    f"a balanced subset of {count} needs {wanted} images of each class of "
                    f"{self.name}, '{self.class_names[label]}' has {len(members)}"
                )
            chosen += generator.choice(members, wanted, replace=False).tolist()
        return np.array(sorted(chosen), np.int64)
