"""Training state of a probe, saved to disk so that it can be resumed."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rsa_eval.evaluators.linear.heads import HeadTrainer
from rsa_eval.evaluators.shared.resumable import StateFile


@dataclass
class ProbeState:
    """The state of a training run, which can be stopped and resumed at any step.

    Attributes:
        trainer: Heads and velocities.
        fingerprint: Identifies weights, images and settings; a state of others is ignored.
        path: Its file; None keeps no state.
        step: Steps taken.
        loss_sums: Each head's loss in this epoch so far, summed over images, float64 (H,).
        losses: Mean loss of each head in each finished epoch.
    """

    trainer: HeadTrainer
    fingerprint: str
    path: Path | None
    step: int = 0
    loss_sums: Tensor = field(init=False)
    losses: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        heads = self.trainer.heads
        self.loss_sums = heads.bias.new_zeros(len(heads.bias), dtype=torch.float64)
        self._file = None if self.path is None else StateFile(self.path, self.fingerprint)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        heads = self.trainer.heads
        return [heads.weight, heads.bias, *self.trainer.velocities, self.loss_sums]

    def save(self) -> None:
        """Write the state, from the main process."""
        if self._file is None:
            return
        tensors = [tensor.cpu() for tensor in self.tensors()]
        self._file.write({"step": self.step, "losses": self.losses, "tensors": tensors})

    def restore(self) -> None:
        """Load the file if there is one of this training run; otherwise change nothing.

        Raises:
            UserError: If the processes do not see the same file.
        """
        content = None if self._file is None else self._file.read()
        if content is None:
            return
        for tensor, saved in zip(self.tensors(), content["tensors"], strict=True):
            tensor.copy_(saved)
        self.step, self.losses = content["step"], content["losses"]
