"""Train so that a signal may stop at any step; rerun the command to resume."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rsa_eval.config import EvaluationConfig, result_settings
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.atomic_files import atomic_file
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.distributed import StopVote, is_main, min_over_ranks, wait_for_all
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.plumbing.regular_files import is_there
from rsa_pretrain.plumbing.stop_signal import Stopped, StopSignal
from rsa_pretrain.weights.files.saving import save_torch
from rsa_pretrain.weights.files.values_file import load_values

_log = logging.getLogger(__name__)

_FORMAT_VERSION = 1


class Resumable(Protocol):
    """A training run that counts its steps and can be saved between them."""

    step: int

    def save(self) -> None:
        """Write the state needed to resume, from the main process."""


def run_to_end(
    training: Resumable,
    take_step: Callable[[], None],
    num_steps: int,
    label: str,
    save_every_minutes: float,
) -> None:
    """Take the remaining steps.

    The state is saved at the given interval, at the end, and when a signal stops it.

    Args:
        training: The training run.
        take_step: Takes one step and counts it.
        num_steps: Total number of steps.
        label: Title of the progress bar.
        save_every_minutes: 0 saves after each step.

    Raises:
        Stopped: If a signal requested it, in all processes alike.
    """
    if training.step == num_steps:
        return
    received = None
    with progress_bar(num_steps, label, "step", done=training.step) as bar, StopSignal() as stop:
        vote = StopVote()
        saved = time.monotonic()
        while training.step < num_steps and received is None:
            take_step()
            bar.update()
            received = vote.agree(stop.received)
            if time.monotonic() - saved >= 60 * save_every_minutes:
                training.save()
                saved = time.monotonic()
        received = received or vote.agree(stop.received)  # a signal during the last step
    training.save()
    if received is not None:
        wait_for_all()  # torchrun ends all processes once the first exits
        raise Stopped(
            received,
            f"stopped by {received.name} after step {training.step} of {num_steps}, saved; "
            "rerun the command to resume",
        )


@dataclass(frozen=True)
class StateFile:
    """The file of a training run's saved state.

    Attributes:
        path: The file.
        fingerprint: Identifies weights, images and settings; a state of others is ignored.
        counted: Name in messages of the steps that it counts.
    """

    path: Path
    fingerprint: str
    counted: str = "step"

    def write(self, content: Mapping[str, Any]) -> None:
        """Save tensors and plain values, ``step`` among them, from the main process."""
        if is_main():
            head = {"format_version": _FORMAT_VERSION, "fingerprint": self.fingerprint}
            with atomic_file(self.path) as temporary:
                save_torch(head | dict(content), temporary)

    def read(self) -> dict[str, Any] | None:
        """Return the saved state; None if there is no file of this training run.

        Raises:
            UserError: If the processes do not see the same file.
        """
        content = self._read()
        step = 0 if content is None else content["step"]
        if min_over_ranks(step) != -min_over_ranks(-step):
            raise UserError(
                f"the processes do not see the same '{self.path}' (here {self.counted} {step}); "
                "--out must be on storage that all of them share"
            )
        if content is not None:
            _log.info("resuming after %s %d, from '%s'", self.counted, step, self.path)
        return content

    def _read(self) -> dict[str, Any] | None:
        if not is_there(self.path):
            return None
        content = _load(self.path)
        if not isinstance(content, dict) or content.get("format_version") != _FORMAT_VERSION:
            _log.warning("'%s' is incomplete or damaged; %s", self.path, self._start)
            return None
        if content["fingerprint"] != self.fingerprint:
            _log.warning(
                "'%s' belongs to other weights, images or settings; %s", self.path, self._start
            )
            return None
        return content

    @property
    def _start(self) -> str:
        return f"training starts from {self.counted} 0"


def training_fingerprint(subject: Subject, images: ImageSet, config: EvaluationConfig) -> str:
    """Return a hash of everything that determines a training run."""
    parts = [
        result_settings(to_tree(config)),
        [subject.model.sha256, subject.model.network, *subject.mean, *subject.std],
        images.fingerprint(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _load(path: Path) -> Any:
    """Return the file's tensors and plain values; None if it is damaged."""
    try:
        return load_values(path)
    except (OSError, ValueError):
        return None
