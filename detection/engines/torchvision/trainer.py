"""Train with the torchvision engine, in one process or several."""

from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.precise_bn import refresh_statistics
from detection.engines.torchvision.prediction import predict
from detection.engines.torchvision.run_state import BEST_FILE, DetectorState, save_weights
from detection.feeding.batches import OrientedBatches
from detection.feeding.samples import TrainingSample, TrainingStream, step_seed
from detection.job.evaluations import Evaluations
from detection.job.job import Job
from detection.job.training_log import TrainingLog
from detection.recipe.recipe import lr_schedule
from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.plumbing.distributed import (
    StopVote,
    data_parallel,
    is_main,
    rank,
    share_buffers,
    world_size,
)
from rsa_pretrain.plumbing.stop_signal import StopSignal
from rsa_pretrain.weights.checkpoint import prune_checkpoints


def check(job: Job) -> None:
    """Accept every job: this engine trains whatever a recipe can say."""


def train(job: Job, run_dir: Path, resume_from: Path | None, stop: StopSignal) -> MaskRCNN:
    """Fine-tune a detector to the end of its schedule, or to a stop signal.

    Several processes in a group train one detector, each on its share of the batch.

    Args:
        job: The run.
        run_dir: Receives metrics, checkpoints, the last of which is the result, and the best
            weights evaluated during training.
        resume_from: Checkpoint folder to continue from; None starts at step 0.
        stop: Checked between steps; a checkpoint is saved before stopping. Afterwards it has the
            signal that all processes agreed on.

    Returns:
        The detector in train mode, on the job's device.

    Raises:
        UserError: If the loss stops being finite, which is noticed when the log's next line is due
            and before anything is saved (earlier checkpoints stay); if an image is broken, or
            ``resume_from`` belongs to another backbone or other annotations.
    """
    trainer = _Trainer(job, run_dir)
    if resume_from is not None:
        trainer.state.resume(resume_from)
        if is_main():  # what a stop left undone
            prune_checkpoints(run_dir, job.recipe.training.keep_checkpoints)
    with TrainingLog(job, run_dir, trainer.state.step) as log:
        trainer.run(log, stop)
    return trainer.state.detector


class _Trainer:
    """A run in progress."""

    def __init__(self, job: Job, run_dir: Path) -> None:
        self._job = job
        self._run_dir = run_dir
        self.state = DetectorState(job)
        self._network = data_parallel(self.state.detector, job.device)
        self._plan = job.recipe.solver.schedule
        self._lr_share = lr_schedule(job.recipe.solver)

    def run(self, log: TrainingLog, stop: StopSignal) -> None:
        """Take the remaining steps."""
        state, job = self.state, self._job
        every = job.recipe.training.checkpoint_every_iterations
        save_best = partial(save_weights, state.detector, job)
        evaluations = Evaluations(job, self._run_dir / BEST_FILE, save_best, log)
        vote = StopVote()
        received = None
        batches = self._batches(range(state.step, self._plan.iterations))
        with closing(batches):
            for samples in log.timed(batches):
                losses = self._train_step(samples)
                log.add_step(state.step, losses)
                received = vote.agree(stop.received)
                finished = state.step == self._plan.iterations
                evaluated = evaluations.due(state.step)
                if evaluated or received:
                    log.catch_up()
                with log.paused():
                    if evaluated or finished:
                        self._refresh_statistics()
                        share_buffers(state.detector)  # evaluate the buffers that are saved
                    if evaluated:
                        evaluations.take(state.step, predict(state.detector, job))
                    if (finished or received or state.step % every == 0) and is_main():
                        state.save(self._run_dir)
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

    def _train_step(self, samples: list[TrainingSample]) -> dict[str, Tensor | float]:
        """Take one optimizer step; return its rate and this process's losses, on the device."""
        recipe, state = self._job.recipe, self.state
        lr = self._plan.lr * self._lr_share(state.step / self._plan.iterations)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(step_seed(recipe.seed, state.step, rank()))
        with autocast(recipe.training.precision, self._job.device):
            losses: dict[str, Tensor] = self._network(samples)
        loss = torch.stack(list(losses.values())).sum()
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        return {"loss": loss.detach()} | {k: v.detach() for k, v in losses.items()} | {"lr": lr}

    def _refresh_statistics(self) -> None:
        num_batches = self._job.recipe.training.precise_bn_iterations
        if num_batches is not None:
            with closing(self._batches(range(num_batches))) as batches:
                refresh_statistics(self.state.detector, batches, num_batches, self._job)
