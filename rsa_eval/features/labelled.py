"""Hold features with their class indices."""

from dataclasses import dataclass
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class LabelledFeatures:
    """Features, (N, D), with their class indices, int64 (N,), which are on the CPU.

    Features are float32, and on the CPU, unless a function says otherwise. The index of an image
    without a class is ``UNLABELLED``.
    """

    features: Tensor
    labels: Tensor

    def cpu(self) -> "LabelledFeatures":
        """Return the same with the features on the CPU."""
        return LabelledFeatures(self.features.cpu(), self.labels)

    @classmethod
    def of(cls, features: ArrayLike, labels: ArrayLike | None = None) -> Self:
        """Check features and labels of any origin.

        Args:
            features: Numbers, (N, D): a tensor, a NumPy array or nested lists.
            labels: Class indices from 0 on, whole numbers (N,), ``UNLABELLED`` for an image without
                class; None if no image has one.

        Returns:
            Features as float32, labels as int64.

        Raises:
            UserError: If a shape is another, there is no image, a feature is not finite, or a label
                is not a class index.
        """
        found = torch.as_tensor(features).detach().cpu().float()
        if found.ndim != 2 or 0 in found.shape:
            raise UserError(f"expected features (N, D), found shape {tuple(found.shape)}")
        num_broken = int((~found.isfinite().all(dim=1)).sum())
        if num_broken:
            raise UserError(
                f"{num_broken} of {len(found)} images have features that are not finite; extract "
                "them at precision fp32"
            )
        if labels is None:
            return cls(found, torch.full((len(found),), UNLABELLED))
        classes = torch.as_tensor(labels).detach().cpu()
        if classes.shape != (len(found),):
            raise UserError(
                f"expected a label for each of {len(found)} images, found shape "
                f"{tuple(classes.shape)}"
            )
        if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
            raise UserError(f"expected class indices, found labels of type {classes.dtype}")
        if (classes < UNLABELLED).any():
            raise UserError(f"class indices start at 0, found {int(classes.min())}")
        return cls(found, classes.long())
