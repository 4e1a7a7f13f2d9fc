"""Open, resume and write the folder of a pretraining run; only the main process writes."""

from contextlib import ExitStack

from rsa_pretrain.config import CONFIG_FILE
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.plumbing.atomic_files import remove_leftovers
from rsa_pretrain.plumbing.config.files import config_hash, write_config
from rsa_pretrain.plumbing.distributed import is_main, min_over_ranks
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.folder_lock import folder_lock
from rsa_pretrain.plumbing.machines import correct_machine, note_machine
from rsa_pretrain.plumbing.metrics_log import MetricsLog
from rsa_pretrain.plumbing.user_paths import real_path
from rsa_pretrain.training.continuation import EXTEND
from rsa_pretrain.training.extension import Parent
from rsa_pretrain.training.run_state import RunState
from rsa_pretrain.weights.checkpoint import (
    BACKBONE_FILE,
    FORMAT_VERSION,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    save_tensors,
)
from rsa_pretrain.weights.metadata import BackboneMetadata, library_versions


class RunFolder:
    """The folder of a run; ``weights.checkpoint`` documents its layout.

    Every process of a run reads it; methods that write are no-ops outside the main process.

    Args:
        state: The run.
        steps_per_epoch: Steps per epoch, for the metadata.
    """

    def __init__(self, state: RunState, steps_per_epoch: int) -> None:
        self.state = state
        self.config = state.config
        self.path = state.config.output_dir
        self.steps_per_epoch = steps_per_epoch
        self._lock = ExitStack()

    def open(self, resume: bool, parent: Parent | None, steps: str | None) -> None:
        """Restore the last checkpoint, if there is one, or else the parent's; write the settings.

        Other runs are kept out of the folder until ``close``, or the end of this process.
        A state restored from a parent is saved at once, so that the run no longer needs it.

        Args:
            resume: Resume from the folder's last checkpoint, if it has one.
            parent: The finished run to extend if the folder has no checkpoint.
            steps: How a GPU will run the steps, for the machine file.

        Raises:
            UserError: If another run is writing to the folder; if there is a checkpoint and
                ``resume`` is not set, it is of another run, or the processes see different ones;
                or if ``extends`` is set without a parent.
        """
        self._lock.enter_context(folder_lock(self.path))
        own = newest_checkpoint(self.path)
        if own is not None and not resume:
            raise UserError(
                f"'{self.path}' already contains a run ({real_path(own).name}); "
                "pass --resume to resume it, or choose another output_dir"
            )
        if own is not None:
            model_state, _, trainer_state = load_checkpoint(own)
            self.state.restore(model_state, trainer_state, source=f"'{own}'")
        elif parent is not None:
            model_state, _, trainer_state = load_checkpoint(parent.checkpoint)
            self.state.restore(model_state, trainer_state, EXTEND, f"'{parent.checkpoint}'")
            parent.log_schedule_change(self.config)
        elif self.config.extends is not None:
            raise UserError(
                f"'{self.path}' is to extend the run whose {BACKBONE_FILE} has SHA-256 "
                f"{self.config.extends.backbone_sha256}; name its folder with --extend"
            )
        if min_over_ranks(self.state.step) != -min_over_ranks(-self.state.step):
            raise UserError(
                f"the processes do not see the same checkpoints in '{self.path}' (here step "
                f"{self.state.step}); output_dir must be on storage that all of them share"
            )
        if is_main():
            remove_leftovers(self.path)
            remove_leftovers(self.path / "checkpoints")
            prune_checkpoints(self.path, self.config.training.keep_checkpoints)
            write_config(self.config, self.path / CONFIG_FILE)
            note_machine(self.path, self.state.device, steps)
        if own is None and parent is not None:
            self.save()

    def close(self) -> None:
        """Let other runs in again."""
        self._lock.close()

    def correct_machine(self, steps: str) -> None:
        """Note that a GPU runs the steps in another way than it was opened with."""
        if is_main():
            correct_machine(self.path, steps)

    def open_log(self) -> MetricsLog | None:
        """Open the metrics log, continuing after the restored step."""
        if not is_main():
            return None
        return MetricsLog(self.path, self.state.step, self.config.monitor.wandb_project)

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            UserError: If a weight is not finite; the last good checkpoint is kept.
        """
        if not is_main():
            return
        broken = self.state.first_non_finite()
        if broken is not None:
            raise self.broken(f"'{broken}' contains NaN or infinity", self.state.step)
        save_checkpoint(
            self.path,
            self.state.method.state_dict(),
            self._metadata(),
            self.state.trainer_state(),
            self.config.training.keep_checkpoints,
        )

    def save_backbone(self) -> None:
        """Write the finished backbone."""
        if is_main():
            tensors = self.state.method.backbone.state_dict()
            save_tensors(self.path / BACKBONE_FILE, tensors, self._metadata())

    def broken(self, what: str, step: int) -> UserError:
        """Return the error of a run that diverged by a step; it names the last good checkpoint."""
        good = list_checkpoints(self.path)
        last = f"the last good checkpoint is '{good[-1]}'" if good else "there is no checkpoint yet"
        num_steps = self.config.training.epochs * self.steps_per_epoch
        return UserError(
            f"training diverged: {what} at step {step} of {num_steps}; {last}; "
            "try a lower optimizer.base_lr, a longer warm-up or training.precision=fp32"
        )

    def _metadata(self) -> BackboneMetadata:
        mean, std = normalisation(self.config.data)
        extends = self.config.extends
        return BackboneMetadata(
            format_version=FORMAT_VERSION,
            arch=self.config.backbone.name,
            stem=self.config.backbone.stem,
            method=self.config.method.name,
            image_size=self.config.data.image_size,
            channel_order="RGB",
            mean=mean,
            std=std,
            data_set=self.config.data.name,
            epochs=self.state.step / self.steps_per_epoch,
            step=self.state.step,
            seed=self.config.seed,
            config_hash=config_hash(self.config),
            parent=None if extends is None else extends.backbone_sha256,
            library_versions=library_versions(),
        )
