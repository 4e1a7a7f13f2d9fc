"""Match boxes to objects by torchvision's matcher, extended to images without objects."""

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher


class ObjectMatcher(Matcher):  # type: ignore[misc]  # torchvision has no type information
    """torchvision's matcher, which by itself fails on images without objects.

    As in detectron2, all boxes of such an image are background.
    """

    def __call__(self, overlaps: Tensor) -> Tensor:
        """Return each box's object, or a negative code without one; (N, B) to (B,)."""
        if len(overlaps) == 0:
            return overlaps.new_full(
                (overlaps.shape[1],), self.BELOW_LOW_THRESHOLD, dtype=torch.int64
            )
        matches: Tensor = super().__call__(overlaps)
        return matches


def of_object(values: Tensor, matches: Tensor, otherwise: Tensor) -> Tensor:
    """Choose each box's value by its object.

    Args:
        values: Of the objects, (N, …).
        matches: Each box's object; negative where it has none, (B,).
        otherwise: Values of boxes without an object, (B, …).
    """
    if len(values) == 0:
        return otherwise
    has_object = (matches >= 0).reshape(-1, *[1] * (values.dim() - 1))
    return torch.where(has_object, values[matches.clamp(min=0)], otherwise)
