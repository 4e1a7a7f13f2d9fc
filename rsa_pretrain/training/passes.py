"""Compute the forward and the backward pass of a batch."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from rsa_pretrain.methods.base import Scalar, StepOutput
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.training.profiling import part
from rsa_pretrain.training.run_state import RunState


class Passes(Protocol):
    """A way to compute the gradients of a step, in one or several passes."""

    def begin_step(self) -> None:
        """Forget the gradients of the step before."""

    def __call__(
        self, views: list[Tensor], scalars: Mapping[str, float], labels: Tensor | None
    ) -> StepOutput:
        """Add a batch's gradients to those of the step.

        Args:
            views: (N, 3, H, W) each, in their set's order.
            scalars: Numbers of the method's forward that change from step to step.
            labels: Class indices (N,), if the method reads them.

        Returns:
            The pass's result, with a detached loss. It may be overwritten by the next pass.
        """


class EagerPasses:
    """Launches every operation of a pass by itself.

    Args:
        state: The run.
        network: Its method, or the method's ``DistributedDataParallel``.
    """

    def __init__(self, state: RunState, network: nn.Module) -> None:
        self.state = state
        self.network = network

    def begin_step(self) -> None:
        """Forget the gradients of the step before."""
        self.state.optimizer.zero_grad()

    def __call__(
        self, views: list[Tensor], scalars: Mapping[str, Scalar], labels: Tensor | None
    ) -> StepOutput:
        """Add a batch's gradients to those of the step."""
        state = self.state
        with part("layout"):
            views = [view.contiguous(memory_format=state.layout) for view in views]
        inputs: tuple[Any, ...] = (views, scalars) if labels is None else (views, scalars, labels)
        # The networks' forwards are separate parts.
        with part("loss"), autocast(state.config.training.precision, state.device):
            output: StepOutput = self.network(*inputs)
        with part("backward"):
            loss: Tensor = state.scaler.scale(output.loss * (1 / state.plan.num_passes))
            loss.backward()  # type: ignore[no-untyped-call]
        return StepOutput(output.loss.detach(), output.metrics, output.kept)
