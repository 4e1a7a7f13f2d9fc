"""Extend a finished run with a new schedule, in a new folder."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from rsa_pretrain.config import SCHEDULE_SETTINGS, ExtensionConfig, PretrainConfig
from rsa_pretrain.plumbing.config.files import flatten, parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import real_path
from rsa_pretrain.training.continuation import EXTEND
from rsa_pretrain.training.learning_rate import learning_rate
from rsa_pretrain.weights.checkpoint import (
    BACKBONE_FILE,
    BACKBONE_PREFIX,
    file_sha256,
    load_checkpoint,
    newest_checkpoint,
    read_tensors,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """A finished run that can be extended."""

    folder: Path
    checkpoint: Path
    """Folder of its last checkpoint."""
    config: PretrainConfig
    backbone_sha256: str
    step: int
    """Optimizer steps it took."""

    def extended(self, config: PretrainConfig) -> PretrainConfig:
        """Return a run's settings, marked as extending this one.

        Raises:
            UserError: If the settings name another run.
        """
        told = config.extends
        if told is not None and told.backbone_sha256 != self.backbone_sha256:
            raise UserError(
                f"the run extends one whose {BACKBONE_FILE} has SHA-256 {told.backbone_sha256}; "
                f"that of '{self.folder}' has {self.backbone_sha256}"
            )
        settings = flatten(to_tree(self.config))
        before = {
            key: value
            for key, value in settings.items()
            if key in SCHEDULE_SETTINGS or key.startswith("extends.")
        }
        extends = ExtensionConfig(
            backbone_sha256=self.backbone_sha256, step=self.step, before=before
        )
        return config.model_copy(update={"extends": extends})

    def log_schedule_change(self, config: PretrainConfig) -> None:
        """Log what changes between the parent's last step and the first step of its extension."""
        before, now = self.config, config
        num_steps = self.step * now.training.epochs // before.training.epochs
        old = _scheduled(before, (self.step - 1) / self.step)
        new = _scheduled(now, self.step / num_steps)
        changes = (f"{name} {old[name]:.6g} -> {new[name]:.6g}" for name in new)
        _log.info(
            "extending '%s' from step %d of %d epochs to %d epochs: %s",
            self.folder,
            self.step,
            before.training.epochs,
            now.training.epochs,
            ", ".join(changes),
        )


def open_parent(folder: Path, config: PretrainConfig) -> Parent:
    """Open the finished run to extend, if it can be extended.

    Args:
        folder: Its run folder; left unchanged.
        config: The run that extends it.

    Raises:
        UserError: If the folder contains no finished run with its last checkpoint, the settings
            differ in more than the schedule, there is no epoch to add, or ``output_dir`` is in
            the folder.
    """
    backbone = folder / BACKBONE_FILE
    if not backbone.is_file():
        raise UserError(
            f"--extend '{folder}' is not the folder of a finished run: it contains no "
            f"{BACKBONE_FILE}; finish an unfinished run with --resume first"
        )
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise UserError(
            f"--extend '{folder}' has no checkpoints/step-NNNNNNNN, and {BACKBONE_FILE} alone "
            "lacks the other networks and the optimizer's state; restore the run's last checkpoint"
        )
    if real_path(config.output_dir).is_relative_to(real_path(folder)):
        raise UserError(
            f"output_dir '{config.output_dir}' is that of the run to be extended, which is left "
            "unchanged; set another"
        )
    model_state, metadata, trainer_state = load_checkpoint(checkpoint)
    tensors, _ = read_tensors(backbone)
    if not all(
        torch.equal(tensor, model_state.get(BACKBONE_PREFIX + name, torch.empty(0)))
        for name, tensor in tensors.items()
    ):
        raise UserError(
            f"'{backbone}' is not the backbone of the last checkpoint '{checkpoint}'; finish the "
            "run with --resume first"
        )
    saved = trainer_state.get("config")
    if saved is None or metadata.step is None:
        raise UserError(f"'{checkpoint}' does not say what it is a checkpoint of")
    before = parse_tree(PretrainConfig, saved, f"settings of '{checkpoint}'")
    EXTEND.refuse_other_settings(saved, config)
    _refuse_no_more_epochs(before, config)
    return Parent(folder, checkpoint, before, file_sha256(backbone), metadata.step)


def _refuse_no_more_epochs(before: PretrainConfig, now: PretrainConfig) -> None:
    if now.training.epochs <= before.training.epochs:
        raise UserError(
            f"training.epochs {now.training.epochs} is the total number of epochs, and the run to "
            f"be extended has trained {before.training.epochs}; set more"
        )


def _scheduled(config: PretrainConfig, progress: float) -> dict[str, float]:
    rate = learning_rate(config, progress)
    return {"learning rate": rate, **config.method.scheduled(progress)}
