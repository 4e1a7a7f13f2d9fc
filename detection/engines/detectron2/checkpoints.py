"""Write checkpoints that any detectron2 program reads, atomically and tied to their job."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from detection.job.job import Job
from detection.job.run_checkpoints import list_checkpoint_files
from rsa_pretrain.plumbing.atomic_files import atomic_file, write_text
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.files.saving import save_torch
from rsa_pretrain.weights.metadata import METADATA_KEY
from rsa_pretrain.weights.tensor_check import check_tensors

_MODEL_PREFIX = "model/"

BEST_FILE = Path("checkpoints") / "model_best.pth"
"""The best weights, in the run folder; its name distinguishes it from checkpoints."""


class Checkpointer(DetectionCheckpointer):  # type: ignore[misc]
    """detectron2's checkpointer, made to leave a complete checkpoint if killed at any moment.

    Args:
        detector: Network to save.
        folder: Receives the files.
        keep: Number of newest checkpoints to keep; None keeps all.
        parts: Further objects to save by key, each with a ``state_dict``.
    """

    def __init__(self, detector: nn.Module, folder: Path, keep: int | None, **parts: Any) -> None:
        super().__init__(detector, str(folder), **parts)
        self._folder = folder
        self._keep = keep

    def save(self, name: str, **values: Any) -> None:
        """Write one checkpoint, mark it as the last, and delete the oldest."""
        if not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        file = self._folder / f"{name}.pth"
        with atomic_file(file) as temporary:
            save_torch({"model": self.model.state_dict(), **parts, **values}, temporary)
        write_text(self._folder / "last_checkpoint", file.name)
        self.prune()

    def prune(self) -> None:
        """Delete the oldest checkpoints beyond those to keep."""
        if self._keep is not None:
            for old in list_checkpoint_files(self._folder)[: -self._keep]:
                old.unlink()


class Provenance:
    """Identity of a checkpoint's run, saved in it; a run resumes only from its own."""

    def __init__(self, job: Job, step: Callable[[], int]) -> None:
        self._job = job
        self._step = step

    def state_dict(self) -> dict[str, str | None]:
        """Return plain values."""
        return {
            **_described(self._job, self._step()),
            "trunk_sha256": self._job.trunk.subject.sha256,
            "train_sha256": self._job.train_sha256,
        }

    def load_state_dict(self, state: dict[str, str | None]) -> None:
        """Compare with the job's.

        Raises:
            UserError: As ``Job.check_same_start``.
        """
        self._job.check_same_start(state["trunk_sha256"], state["train_sha256"])


def make_checkpointer(
    detector: nn.Module, folder: Path, job: Job, trainer: Any, step: Callable[[], int]
) -> Checkpointer:
    """Return the checkpointer of a run.

    Args:
        detector: Network in training.
        folder: Receives the files.
        job: The run.
        trainer: detectron2's; its state is saved, too.
        step: Returns the iterations taken.
    """
    keep = job.recipe.training.keep_checkpoints
    notes = {METADATA_KEY: Provenance(job, step)}
    return Checkpointer(detector, folder, keep, trainer=trainer, **notes)


def save_weights(
    detector: nn.Module, job: Job, step: int, file: Path, notes: dict[str, str]
) -> None:
    """Write the weights alone, atomically.

    Args:
        detector: Of the job.
        job: The run.
        step: Iterations taken.
        file: File to write.
        notes: Stored in it beside the job's.
    """
    with atomic_file(file) as temporary:
        told = {**_described(job, step), **notes}
        save_torch({"model": detector.state_dict(), METADATA_KEY: told}, temporary)


def check_checkpoint(path: Path, detector: nn.Module) -> None:
    """Refuse any file that is not exactly this run's checkpoint; detectron2 would only warn.

    Raises:
        UserError: If it is damaged, or of another recipe or program.
    """
    content = read_checkpoint_file(path)
    found = {
        name.removeprefix(_MODEL_PREFIX): tensor
        for name, tensor in content.tensors.items()
        if name.startswith(_MODEL_PREFIX)
    }
    check_tensors(found, detector.state_dict(), f"'{path}' as this recipe's detector")
    if not any(name.startswith(f"{METADATA_KEY}/") for name in content.values):
        raise UserError(f"'{path}' is not a checkpoint of this toolkit; it cannot be resumed")


def _described(job: Job, step: int) -> dict[str, str]:
    return {"metadata": job.metadata(step).model_dump_json(), **job.notes}
