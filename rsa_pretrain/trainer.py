"""The only pretraining loop."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rsa_pretrain.atomic_files import remove_leftovers
from rsa_pretrain.augment import MultiStageViews
from rsa_pretrain.backbone import gflops_per_image
from rsa_pretrain.checkpoint import (
    BACKBONE_FILE,
    FORMAT_VERSION,
    BackboneMetadata,
    library_versions,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    save_tensors,
)
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import config_hash, write_config
from rsa_pretrain.data import normalisation
from rsa_pretrain.device import autocast, check_precision, resolve_device
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.loader import AugmentedImages, StepSampler, iterate, make_loader
from rsa_pretrain.metrics_log import MetricsLog
from rsa_pretrain.optim import scaled_lr
from rsa_pretrain.progress import progress_bar
from rsa_pretrain.run_state import RunState, count_parameters
from rsa_pretrain.schedules import warmup_cosine
from rsa_pretrain.stop_signal import StopSignal

_log = logging.getLogger(__name__)


class Trainer:
    """Trains one method on one data set, from step 0 or from the last checkpoint.

    Args:
        config: The run.
        images: Training images.
        resume: Go on from the run folder's last checkpoint, if it has one.

    Raises:
        UserError: If the run folder is taken, the batch larger than the data set, the device
            missing, or the checkpoint of another run.
    """

    def __init__(self, config: PretrainConfig, images: ImageSet, *, resume: bool) -> None:
        self.config = config
        self.images = images
        self.device = resolve_device(config.training.device)
        check_precision(config.training.precision, self.device)
        self.batch_size = config.training.batch_size_per_device
        self.steps_per_epoch = len(images) // self.batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"training.batch_size_per_device {self.batch_size} is more than the "
                f"{len(images)} training images"
            )
        self.num_steps = config.training.epochs * self.steps_per_epoch
        self.state = RunState(config, images.fingerprint(), self.device)
        self._open_run_folder(resume)
        self._sums: dict[str, Tensor] = {}
        self._num_summed = 0
        self._interval_start = time.monotonic()

    def run(self) -> int:
        """Train to the end, or to SIGTERM or SIGINT; either way the last step is saved.

        Returns:
            0 at the end of training, 128 + the signal's number if a signal stopped it.

        Raises:
            UserError: If the loss or a weight is not finite; the last good checkpoint stays.
        """
        bar = progress_bar(
            self.num_steps * self.batch_size, "pretraining", "img", self._step * self.batch_size
        )
        with StopSignal() as stop, MetricsLog(self.config.output_dir, self._step) as log, bar:
            for views in self._batches():
                self._train_step(views)
                bar.update(self.batch_size)
                stopping = stop.received is not None  # asked once: it may come at any moment
                saving = stopping or self._checkpoint_due()
                if saving or self._step % self.config.training.log_every_steps == 0:
                    bar.set_postfix(loss=f"{self._write_metrics(log):.3f}", refresh=False)
                if saving:
                    self._save()
                if stopping:
                    break
        if self._step < self.num_steps:
            _log.warning(
                "stopped by %s after step %d of %d, saved; --resume goes on from there",
                stop.received.name if stop.received else "",
                self._step,
                self.num_steps,
            )
            return stop.exit_code
        self._save_backbone()
        return 0

    @property
    def _step(self) -> int:
        return self.state.step

    def _train_step(self, views: list[Tensor]) -> None:
        progress = self._step / self.num_steps
        lr = self._learning_rate(progress)
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr
        views = [
            view.to(self.device, non_blocking=True, memory_format=torch.channels_last)
            for view in views
        ]
        with autocast(self.config.training.precision, self.device):
            output = self.state.method(views, progress)
        self.state.optimizer.zero_grad()
        self.state.scaler.scale(output.loss).backward()
        self.state.scaler.step(self.state.optimizer)
        self.state.scaler.update()
        self.state.method.after_optimizer_step(progress)
        self.state.step += 1
        self._sum_metrics({"loss": output.loss.detach(), **output.metrics, "lr": lr})

    def _learning_rate(self, progress: float) -> float:
        optimizer = self.config.optimizer
        peak = scaled_lr(optimizer.base_lr, self.batch_size)
        return warmup_cosine(peak, optimizer.warmup_epochs / self.config.training.epochs, progress)

    def _batches(self) -> Iterator[list[Tensor]]:
        mean, std = normalisation(self.config.data)
        views = MultiStageViews(self.config.views, self.config.data.image_size, mean, std)
        dataset = AugmentedImages(self.images, views, self.config.seed)
        steps = range(self._step, self.num_steps)
        sampler = StepSampler(len(self.images), self.batch_size, self.config.seed, steps)
        return iterate(make_loader(dataset, sampler, self.config.data.num_workers, self.device))

    def _sum_metrics(self, metrics: dict[str, Any]) -> None:
        # Sums stay on the device: reading them would wait for the step to finish.
        for name, value in metrics.items():
            value = torch.as_tensor(value, dtype=torch.float32, device=self.device)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._num_summed += 1

    def _write_metrics(self, log: MetricsLog) -> float:
        """Log the means since the last line and return the mean loss."""
        means = {name: float(total) / self._num_summed for name, total in self._sums.items()}
        loss = means["loss"]
        if loss - loss != 0:  # NaN or infinite
            self._stop_broken(f"the loss is {loss}")
        seconds = time.monotonic() - self._interval_start
        means["epoch"] = self._step / self.steps_per_epoch
        means["images_per_second"] = self._num_summed * self.batch_size / seconds
        log.write(self._step, means)
        self._sums, self._num_summed = {}, 0
        self._interval_start = time.monotonic()
        return loss

    def _checkpoint_due(self) -> bool:
        every = self.config.training.checkpoint_every_epochs * self.steps_per_epoch
        return self._step % every == 0 or self._step == self.num_steps

    def _save(self) -> None:
        broken = self.state.first_non_finite()
        if broken is not None:
            self._stop_broken(f"'{broken}' holds NaN or infinity")
        save_checkpoint(
            self.config.output_dir,
            self.state.method.state_dict(),
            self._metadata(),
            self.state.trainer_state(),
            self.config.training.keep_checkpoints,
        )

    def _stop_broken(self, what: str) -> None:
        good = list_checkpoints(self.config.output_dir)
        last = f"the last good checkpoint is '{good[-1]}'" if good else "there is no checkpoint yet"
        raise UserError(
            f"training broke down: {what} at step {self._step} of {self.num_steps}; {last}; "
            "try a lower optimizer.base_lr, a longer warm-up or training.precision=fp32"
        )

    def _save_backbone(self) -> None:
        path = self.config.output_dir / BACKBONE_FILE
        save_tensors(path, self.state.method.backbone.state_dict(), self._metadata())

    def _metadata(self) -> BackboneMetadata:
        mean, std = normalisation(self.config.data)
        return BackboneMetadata(
            format_version=FORMAT_VERSION,
            arch=self.config.backbone.arch,
            stem=self.config.backbone.stem,
            method=self.config.method.name,
            image_size=self.config.data.image_size,
            channel_order="RGB",
            mean=mean,
            std=std,
            data_set=self.config.data.name,
            epochs=self._step / self.steps_per_epoch,
            step=self._step,
            seed=self.config.seed,
            config_hash=config_hash(self.config),
            parent=None,
            library_versions=library_versions(),
        )

    def _open_run_folder(self, resume: bool) -> None:
        folder = self.config.output_dir
        checkpoints = list_checkpoints(folder)
        if checkpoints and not resume:
            raise UserError(
                f"'{folder}' already holds a run ({checkpoints[-1].name}); "
                "pass --resume to go on, or choose another output_dir"
            )
        if checkpoints:
            model_state, _, trainer_state = load_checkpoint(folder / "checkpoints" / "last")
            self.state.restore(model_state, trainer_state)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        remove_leftovers(folder / "checkpoints")
        write_config(self.config, folder / "config.yaml")
        _log.info(
            "%s: %s, %.1f M trainable parameters, %.2f GFLOP a view; %d images, %d steps of %d "
            "(%d an epoch), from step %d, on %s",
            folder,
            self.config.backbone.arch,
            count_parameters(self.state.method) / 1e6,
            gflops_per_image(self.config.backbone, self.config.data.image_size),
            len(self.images),
            self.num_steps,
            self.batch_size,
            self.steps_per_epoch,
            self._step,
            self.device,
        )
