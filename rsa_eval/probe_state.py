"""How far the training of a probe has come, on disk while it goes on."""

import logging
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsa_eval.linear_heads import HeadTrainer
from rsa_pretrain.atomic_files import atomic_file
from rsa_pretrain.distributed import is_main, min_over_ranks
from rsa_pretrain.errors import UserError

_log = logging.getLogger(__name__)

_FORMAT_VERSION = 1


@dataclass
class ProbeState:
    """A training that can be left and taken up at any step.

    Attributes:
        trainer: Heads and velocities.
        fingerprint: Identifies weights, images and settings; a state of others is not used.
        path: Its file.
        step: Steps taken.
        loss_sums: Losses of this epoch so far, each head's summed over images, float64 (H,).
        losses: Mean loss of each head in each finished epoch.
    """

    trainer: HeadTrainer
    fingerprint: str
    path: Path
    step: int = 0
    loss_sums: Tensor = field(init=False)
    losses: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        heads = self.trainer.heads
        self.loss_sums = heads.bias.new_zeros(len(heads.bias), dtype=torch.float64)

    def save(self) -> None:
        """Write the state, from the main process."""
        if not is_main():
            return
        content = {
            "format_version": _FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "step": self.step,
            "losses": self.losses,
            "tensors": [tensor.cpu() for tensor in self._tensors()],
        }
        with atomic_file(self.path) as temporary:
            torch.save(content, temporary)

    def restore(self) -> None:
        """Go on from the file, if there is one of this training; otherwise leave all as it is.

        Raises:
            UserError: If the processes do not see the same file.
        """
        content = self._read()
        step = 0 if content is None else content["step"]
        if min_over_ranks(step) != -min_over_ranks(-step):
            raise UserError(
                f"the processes do not see the same '{self.path}' (here step {step}); --out must "
                "lie on storage that all of them share"
            )
        if content is None:
            return
        for tensor, saved in zip(self._tensors(), content["tensors"], strict=True):
            tensor.copy_(saved)
        self.step, self.losses = step, content["losses"]
        _log.info("going on from step %d of '%s'", self.step, self.path)

    def remove(self) -> None:
        """Delete the file."""
        if is_main():
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        content = _load(self.path)
        if not isinstance(content, dict) or content.get("format_version") != _FORMAT_VERSION:
            _log.warning("'%s' is not a whole state; the training starts anew", self.path)
            return None
        if content["fingerprint"] != self.fingerprint:
            _log.warning(
                "'%s' belongs to other weights, images or settings; the training starts anew",
                self.path,
            )
            return None
        return content

    def _tensors(self) -> list[Tensor]:
        heads = self.trainer.heads
        return [heads.weight, heads.bias, *self.trainer.velocities, self.loss_sums]


def _load(path: Path) -> Any:
    """Return the file's tensors and plain values, None if it is damaged."""
    if not zipfile.is_zipfile(path):  # torch would read anything else as a pickle of old
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError):
        return None
