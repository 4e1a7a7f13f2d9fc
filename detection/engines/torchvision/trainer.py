"""The training loop of the torchvision engine, in one process or several."""

from collections import defaultdict
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from detection.batches import OrientedBatches
from detection.coco_eval import evaluate
from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.precise_bn import refresh_statistics
from detection.engines.torchvision.prediction import predict
from detection.engines.torchvision.run_state import RunState
from detection.job import Job
from detection.recipe import lr_schedule
from detection.samples import TrainingSample, TrainingStream, step_seed
from rsa_pretrain.device import autocast
from rsa_pretrain.distributed import (
    StopVote,
    data_parallel,
    is_main,
    mean_over_ranks,
    rank,
    share_buffers,
    world_size,
)
from rsa_pretrain.errors import UserError
from rsa_pretrain.loader import iterate, make_loader
from rsa_pretrain.metrics_log import MetricsLog
from rsa_pretrain.progress import progress_bar
from rsa_pretrain.stop_signal import StopSignal


def train(job: Job, run_dir: Path, resume_from: Path | None, stop: StopSignal) -> MaskRCNN:
    """Fine-tune a detector to the end of its schedule, or to a stop signal.

    Several processes in a group train one detector, each on its share of the batch.

    Args:
        job: The run.
        run_dir: Receives metrics and checkpoints; the last checkpoint holds the result.
        resume_from: Checkpoint folder to continue from; None starts at step 0.
        stop: Asked between steps; a checkpoint is saved before leaving. Afterwards it holds what
            all processes agreed on.

    Returns:
        The detector in train mode, on the job's device.

    Raises:
        UserError: If the loss stops being finite (earlier checkpoints stay), an image is broken,
            the batch cannot be shared evenly, or ``resume_from`` belongs to another trunk or
            other annotations.
    """
    if job.recipe.solver.batch_size % world_size() != 0:
        raise UserError(
            f"solver.batch_size {job.recipe.solver.batch_size} cannot be divided by "
            f"{world_size()} processes"
        )
    trainer = _Trainer(job, run_dir)
    if resume_from is not None:
        trainer.state.resume(resume_from)
    log: AbstractContextManager[MetricsLog | None] = nullcontext()
    if is_main():
        log = MetricsLog(run_dir, trainer.state.step)
    with log as open_log:
        trainer.run(open_log, stop)
    return trainer.state.detector


class _Trainer:
    """A run in progress."""

    def __init__(self, job: Job, run_dir: Path) -> None:
        self._job = job
        self._run_dir = run_dir
        self.state = RunState(job)
        self._network = data_parallel(self.state.detector, job.device)
        self._plan = job.recipe.solver.schedule
        self._lr_share = lr_schedule(job.recipe.solver)
        self._interval = _Averages()

    def run(self, log: MetricsLog | None, stop: StopSignal) -> None:
        """Take the remaining steps."""
        size, training = self._job.recipe.solver.batch_size, self._job.recipe.training
        vote = StopVote()
        received = None
        progress = progress_bar(
            self._plan.iterations * size, "fine-tuning", "img", self.state.step * size
        )
        batches = self._batches(range(self.state.step, self._plan.iterations))
        with progress, closing(batches):
            for samples in batches:
                losses = self._train_step(samples)
                self._interval.add(losses)
                progress.set_postfix(loss=f"{losses['loss']:.3f}", refresh=False)
                progress.update(size)
                received = vote.agree(stop.received)
                step = self.state.step
                finished = step == self._plan.iterations
                saves = finished or received or step % training.checkpoint_every_iterations == 0
                if log is not None and (saves or step % training.log_every_iterations == 0):
                    log.write(step, self._interval.take())
                if self._evaluation_due() or finished:
                    self._refresh_statistics()
                    share_buffers(self.state.detector)  # evaluated is what is saved
                if self._evaluation_due() and not finished:  # the end is evaluated by the run
                    self._evaluate(log)
                if saves and is_main():
                    self.state.save(self._run_dir)
                if received:
                    break
        stop.received = received

    def _batches(self, steps: range) -> Generator[list[TrainingSample], None, None]:
        recipe = self._job.recipe
        stream = TrainingStream(self._job.train_images, recipe.input, recipe.seed)
        sampler = OrientedBatches(
            lambda position: stream.image_at(position).is_wide,
            recipe.solver.batch_size // world_size(),
            steps,
            rank=rank(),
            world_size=world_size(),
        )
        workers, device = recipe.data.num_workers, self._job.device
        return iterate(make_loader(stream, sampler, workers, device, collate=list))

    def _train_step(self, samples: list[TrainingSample]) -> dict[str, float]:
        """Take one optimizer step; return its losses, averaged over the processes, and rate."""
        recipe, state = self._job.recipe, self.state
        lr = self._plan.lr * self._lr_share(state.step / self._plan.iterations)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(step_seed(recipe.seed, state.step, rank()))
        with autocast(recipe.training.precision, self._job.device):
            losses: dict[str, Tensor] = self._network(samples)
        loss = torch.stack(list(losses.values())).sum()
        means = mean_over_ranks(torch.stack([loss, *losses.values()]).detach())
        if not means[0].isfinite():
            raise UserError(
                f"the loss is {means[0].item()} at iteration {state.step}; earlier checkpoints are "
                f"in '{self._run_dir}'; lower solver.base_lr or warm up longer"
            )
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        return {**dict(zip(["loss", *losses], means.tolist(), strict=True)), "lr": lr}

    def _evaluation_due(self) -> bool:
        every = self._job.recipe.training.evaluate_every_iterations
        return every is not None and self.state.step % every == 0

    def _refresh_statistics(self) -> None:
        num_batches = self._job.recipe.training.precise_bn_iterations
        if num_batches is not None:
            with closing(self._batches(range(num_batches))) as batches:
                refresh_statistics(self.state.detector, batches, num_batches, self._job)

    def _evaluate(self, log: MetricsLog | None) -> None:
        predictions = predict(self.state.detector, self._job)
        if log is not None:
            job = self._job
            metrics = evaluate(job.test_set.tree, predictions, job.iou_types)
            log.write(self.state.step, metrics)


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
