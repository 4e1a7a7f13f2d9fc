"""Define the interface between the trainer and a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

# A number of the step's schedules: a 0-dim float64 tensor in a captured pass, which would keep a
# float as it was when it was captured.
Scalar = float | Tensor


@dataclass(frozen=True)
class StepOutput:
    """Result of one forward pass.

    Attributes:
        loss: Scalar to differentiate.
        metrics: Detached scalars to log, by name.
        kept: Detached tensors that ``after_optimizer_step`` uses.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    kept: tuple[Tensor, ...] = ()


class Method(nn.Module):
    """Networks and a loss; knows nothing of optimizers, devices, files or epochs.

    ``progress`` is the step's share of the run, k / K.
    """

    backbone: nn.Module
    needs_labels: ClassVar[bool] = False
    """True if ``forward`` takes ``labels``, (N,) class indices, as a third argument."""
    needs_whole_batch: ClassVar[bool] = False
    """True if the loss compares images across the batch, so gradients of parts do not add up."""
    is_replayable: ClassVar[bool] = True
    """True if ``forward`` changes parameters and buffers alone, in place, so that a CUDA graph can
    replay it; a Python list or counter would stay as it was when the graph was captured."""

    def scalars(self, progress: float) -> dict[str, float]:
        """Return the numbers of ``forward`` that change from step to step, by name."""
        return {}

    def forward(self, views: list[Tensor], scalars: Mapping[str, Scalar]) -> StepOutput:
        """Compute the loss of one batch.

        Args:
            views: (N, 3, H, W) each, in their set's order.
            scalars: As ``scalars`` returns them, as floats or as 0-dim float64 tensors.
        """
        raise NotImplementedError

    def after_optimizer_step(self, progress: float, outputs: Sequence[StepOutput]) -> None:
        """Update state that gradients do not.

        Args:
            progress: That of the step just taken.
            outputs: Results of its passes.
        """
