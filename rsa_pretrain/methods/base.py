"""Define the interface between the trainer and a method."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class StepOutput:
    """Result of one forward pass.

    Attributes:
        loss: Scalar to differentiate.
        metrics: Detached scalars to log, by name.
    """

    loss: Tensor
    metrics: dict[str, Tensor | float] = field(default_factory=dict)


class Method(Protocol):
    """Networks and a loss; knows nothing of optimizers, devices, files or epochs.

    ``progress`` is the step's share of the run, k / K.
    """

    backbone: nn.Module
    needs_labels: bool
    """True if ``forward`` takes ``labels``, (N,) class indices, as a third argument."""
    needs_whole_batch: bool
    """True if the loss compares images across the batch, so gradients of parts do not add up."""

    def forward(self, views: list[Tensor], progress: float) -> StepOutput:
        """Compute the loss of one batch; views are (N, 3, H, W), in their set's order."""

    def after_optimizer_step(self, progress: float) -> None:
        """Update state that gradients do not; called with the progress of the step just taken."""
