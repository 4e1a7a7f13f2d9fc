"""The training loop of the torchvision engine.

Data order, augmentation and sampling are functions of (seed, step), so a resumed run repeats
nothing and skips nothing: the step, the optimizer and the gradient scaler are its whole state.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detection.coco_eval import evaluate
from detection.engines.torchvision import (
    DIFFERENCES_FROM_DETECTRON2,
    build_detector,
    predict,
)
from detection.job import Job
from detection.recipe import SolverConfig, lr_schedule
from detection.samples import (
    TrainingSample,
    TrainingStream,
    initialisation_seed,
    step_seed,
    unbroken,
)
from rsa_pretrain.checkpoint import (
    FORMAT_VERSION,
    BackboneMetadata,
    check_tensors,
    library_versions,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from rsa_pretrain.config_files import config_hash
from rsa_pretrain.device import autocast
from rsa_pretrain.distributed import world_size
from rsa_pretrain.errors import UserError
from rsa_pretrain.metrics_log import MetricsLog
from rsa_pretrain.progress import progress_bar
from rsa_pretrain.stop_signal import StopSignal, leave_signals_to_main_process

logger = logging.getLogger(__name__)

# The functions of an engine (``detection.engines.Engine``).
__all__ = ["DIFFERENCES_FROM_DETECTRON2", "newest_checkpoint", "predict", "train"]

METHOD = "mask_rcnn"
_NORMS = (nn.BatchNorm2d,)


def newest_checkpoint(run_dir: Path) -> Path | None:
    """Return the folder of a run's newest checkpoint."""
    checkpoints = list_checkpoints(run_dir)
    return checkpoints[-1] if checkpoints else None


def train(job: Job, run_dir: Path, resume_from: Path | None, stop: StopSignal) -> nn.Module:
    """Fine-tune a detector to the end of its schedule, or to a stop signal.

    Args:
        job: The run.
        run_dir: Receives metrics and checkpoints; the last checkpoint holds the result.
        resume_from: Checkpoint folder to continue from; None starts at step 0.
        stop: Asked between steps; a checkpoint is saved before leaving.

    Returns:
        The detector in train mode, on the job's device.

    Raises:
        UserError: If the loss stops being finite (earlier checkpoints stay), an image is broken,
            or ``resume_from`` belongs to another trunk or other annotations; if it is one of
            several processes.
    """
    if world_size() > 1:
        raise UserError("engine torchvision trains in one process; start it without torchrun")
    trainer = _Trainer(job, run_dir)
    if resume_from is not None:
        trainer.resume(resume_from)
    with MetricsLog(run_dir, trainer.step) as log:
        trainer.run(log, stop)
    return trainer.detector


def parameter_groups(detector: nn.Module, solver: SolverConfig) -> list[dict[str, object]]:
    """Split trainable parameters into norms and others, which differ in weight decay."""
    norms: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in detector.modules():
        target = norms if isinstance(module, _NORMS) else others
        target += [part for part in module.parameters(recurse=False) if part.requires_grad]
    return [
        {"params": others, "weight_decay": solver.weight_decay},
        {"params": norms, "weight_decay": solver.norm_weight_decay},
    ]


class _Trainer:
    """A run in progress."""

    def __init__(self, job: Job, run_dir: Path) -> None:
        recipe = job.recipe
        self._job = job
        self._run_dir = run_dir
        torch.manual_seed(initialisation_seed(recipe.seed))
        self.detector = build_detector(recipe, job.trunk, job.num_classes).to(job.device).train()
        self.step = 0
        self._optimizer = torch.optim.SGD(
            parameter_groups(self.detector, recipe.solver),
            lr=recipe.solver.schedule.lr,
            momentum=recipe.solver.sgd_momentum,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(
            job.device.type, enabled=recipe.training.precision == "fp16"
        )
        self._schedule = lr_schedule(recipe.solver)
        self._interval = _Averages()

    def resume(self, folder: Path) -> None:
        """Continue where a checkpoint was written."""
        tensors, metadata, state = load_checkpoint(folder)
        if metadata.parent != self._job.trunk.subject.sha256:
            raise UserError(f"'{folder}' was trained from another trunk than the one given")
        missing = {"train_sha256", "optimizer", "scaler"} - state.keys()
        if missing:
            raise UserError(f"the trainer state of '{folder}' lacks {', '.join(sorted(missing))}")
        if state["train_sha256"] != self._job.train_sha256:
            raise UserError(f"'{folder}' was trained on other annotations than the ones given")
        check_tensors(tensors, self.detector.state_dict(), f"'{folder}' as this recipe's detector")
        self.detector.load_state_dict(tensors, strict=True)
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        assert metadata.step is not None, "a run's checkpoint has its step"
        self.step = metadata.step
        logger.info("resuming from '%s' at iteration %d", folder, self.step)

    def run(self, log: MetricsLog, stop: StopSignal) -> None:
        """Take the remaining steps."""
        solver, training = self._job.recipe.solver, self._job.recipe.training
        progress = progress_bar(
            solver.schedule.iterations * solver.batch_size,
            "fine-tuning",
            "img",
            self.step * solver.batch_size,
        )
        with progress:
            for samples in self._batches():
                losses = self._train_step(samples)
                self.step += 1
                self._interval.add(losses)
                progress.set_postfix(loss=f"{losses['loss']:.3f}", refresh=False)
                progress.update(solver.batch_size)
                is_last = self.step == solver.schedule.iterations or stop.received is not None
                saves = is_last or self.step % training.checkpoint_every_iterations == 0
                if saves or self.step % training.log_every_iterations == 0:
                    log.write(self.step, self._interval.take())
                if self._evaluates_now():
                    predictions = predict(self.detector, self._job)
                    log.write(self.step, evaluate(self._job.test_set.tree, predictions))
                if saves:
                    self._save()
                if is_last:
                    return

    def _batches(self) -> Iterator[list[TrainingSample]]:
        recipe = self._job.recipe
        size = recipe.solver.batch_size
        loader = DataLoader(
            TrainingStream(self._job.train_images, recipe.input, recipe.seed),
            batch_size=size,
            sampler=range(self.step * size, recipe.solver.schedule.iterations * size),
            collate_fn=list,
            num_workers=recipe.data.num_workers,
            worker_init_fn=leave_signals_to_main_process,
        )
        return unbroken(loader)

    def _train_step(self, samples: list[TrainingSample]) -> dict[str, float]:
        """Take one optimizer step; return its losses and rate."""
        recipe, device = self._job.recipe, self._job.device
        schedule = recipe.solver.schedule
        lr = schedule.lr * self._schedule(self.step / schedule.iterations)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(step_seed(recipe.seed, self.step))
        images = [sample.image.to(device) for sample in samples]
        targets = [_to_target(sample, device) for sample in samples]
        with autocast(recipe.training.precision, device):
            losses: dict[str, Tensor] = self.detector(images, targets)
        loss = torch.stack([part.float() for part in losses.values()]).sum()
        if not loss.isfinite():
            raise UserError(
                f"the loss is {loss.item()} at iteration {self.step}; earlier checkpoints are in "
                f"'{self._run_dir}'; lower solver.base_lr or warm up longer"
            )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return {"loss": loss.item(), **{k: v.item() for k, v in losses.items()}, "lr": lr}

    def _evaluates_now(self) -> bool:
        every = self._job.recipe.training.evaluate_every_iterations
        # The end is evaluated with the finished run, not here.
        at_end = self.step == self._job.recipe.solver.schedule.iterations
        return every is not None and self.step % every == 0 and not at_end

    def _save(self) -> None:
        broken = [name for name, t in self.detector.state_dict().items() if not t.isfinite().all()]
        if broken:
            raise UserError(
                f"{len(broken)} tensors are not finite after iteration {self.step}; no checkpoint "
                f"was written over the earlier ones in '{self._run_dir}'"
            )
        save_checkpoint(
            self._run_dir,
            self.detector.state_dict(),
            self._metadata(),
            {
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
                "train_sha256": self._job.train_sha256,
            },
            self._job.recipe.training.keep_checkpoints,
        )

    def _metadata(self) -> BackboneMetadata:
        job, recipe = self._job, self._job.recipe
        return BackboneMetadata(
            format_version=FORMAT_VERSION,
            arch=job.trunk.backbone.arch,
            stem=job.trunk.backbone.stem,
            method=METHOD,
            image_size=recipe.input.test_short_side_pixels,
            channel_order="RGB",
            mean=job.trunk.mean,
            std=job.trunk.std,
            data_set=recipe.data.name,
            epochs=self.step * recipe.solver.batch_size / len(job.train_images),
            step=self.step,
            seed=recipe.seed,
            config_hash=config_hash(recipe),
            parent=job.trunk.subject.sha256,
            library_versions=library_versions(),
        )


class _Averages:
    """Means of metrics since the last line of the log."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._values[name].append(value)

    def take(self) -> dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        self._values.clear()
        return means


def _to_target(sample: TrainingSample, device: torch.device) -> dict[str, Tensor]:
    return {
        "boxes": sample.boxes.to(device),
        "labels": sample.labels.to(device),
        "masks": sample.masks.to(device),
    }
