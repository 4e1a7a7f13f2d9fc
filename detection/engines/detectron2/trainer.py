"""Train by detectron2's own trainer, with its hooks and this toolkit's.

The loop, the optimizer, the schedule, precise BN and the checkpoint format are detectron2's; any
detectron2 program reads the checkpoints. A resumed run ends like an uninterrupted one.
"""

import inspect
import logging
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.env import seed_all_rng
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from detection.coco.evaluation import Prediction
from detection.engines.detectron2.checkpoints import (
    BEST_FILE,
    Checkpointer,
    check_checkpoint,
    make_checkpointer,
    save_weights,
)
from detection.engines.detectron2.data import training_batches
from detection.engines.detectron2.detector import build_detector, make_config
from detection.engines.detectron2.hooks import (
    EvaluationHook,
    LoopStopped,
    MetricsHook,
    PreciseNormHook,
    SeedHook,
    StopHook,
)
from detection.engines.detectron2.predict import predict
from detection.job.evaluations import Evaluations
from detection.job.job import Job
from detection.job.training_log import TrainingLog
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.distributed import (
    data_parallel,
    is_main,
    rank,
    share_buffers,
)
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import StopSignal

_log = logging.getLogger(__name__)

_FINAL = "model_final"  # detectron2's name

DETECTRON2_CONFIG_FILE = "detectron2.yaml"

# It logs each error with a traceback; an error is reported once, where it ends the command.
logging.getLogger("detectron2.engine.train_loop").setLevel(logging.CRITICAL)


def train(job: Job, run_dir: Path, resume_from: Path | None, stop: StopSignal) -> nn.Module:
    """Fine-tune a detector to the end of its schedule, or to a stop signal.

    Args:
        job: The run.
        run_dir: Receives detectron2's config, metrics, checkpoints and the best weights so far.
        resume_from: detectron2's checkpoint to continue from; None starts at iteration 0.
        stop: Checked between iterations; a checkpoint is saved before stopping.

    Returns:
        The detector in train mode, on the job's device.

    Raises:
        UserError: If the loss stops being finite (earlier checkpoints stay), an image is broken, or
            ``resume_from`` has another backbone or other annotations.
        RuntimeError: If a backbone tensor did not reach the detector.
    """
    config = make_config(job)
    folder = run_dir / "checkpoints"
    if is_main():
        write_text(run_dir / DETECTRON2_CONFIG_FILE, config.dump())
        folder.mkdir(exist_ok=True)
    seed_all_rng(job.recipe.seed + rank())
    trainer = _make_trainer(config, job)
    checkpointer = make_checkpointer(trainer.model, folder, job, trainer, lambda: trainer.iter + 1)
    schedule = build_lr_scheduler(config, trainer.optimizer)
    scheduler = hooks.LRScheduler(trainer.optimizer, schedule)
    trainer.register_hooks([SeedHook(job.recipe.seed), scheduler])  # a checkpoint restores them
    start = 0
    if resume_from is not None:
        check_checkpoint(resume_from, checkpointer.model)
        checkpointer.load(str(resume_from))
        start = trainer.iter + 1
        _log.info("resuming from '%s' at iteration %d", resume_from, start)
        # What a kill left undone, after the last step too.
        if start == config.SOLVER.MAX_ITER and resume_from.stem != _FINAL:
            checkpointer.save(_FINAL, iteration=trainer.iter)
        elif is_main():
            checkpointer.prune()
    batches = training_batches(config, job, start, job.recipe.data.num_workers)
    with closing(batches), TrainingLog(job, run_dir, start) as log:
        trainer.data_loader = log.timed(batches)
        trainer.register_hooks(_hooks_between_steps(config, checkpointer, job, run_dir, log))
        trainer.register_hooks([StopHook(stop, checkpointer.save)])
        _run(trainer, start, config.SOLVER.MAX_ITER, run_dir)
    share_buffers(checkpointer.model)  # evaluate the buffers that are saved
    return checkpointer.model  # type: ignore[no-any-return]  # detectron2 has no type information


def check(job: Job) -> None:
    """Refuse what detectron2 cannot train.

    Raises:
        UserError: If it has no such precision, flip or detector.
    """
    make_config(job)
    precision = job.recipe.training.precision
    if precision != "fp32" and job.device.type != "cuda":
        raise UserError(f"precision '{precision}' needs a GPU in detectron2; use 'fp32'")
    if precision == "bf16" and "precision" not in inspect.signature(AMPTrainer).parameters:
        raise UserError("this detectron2's trainer has no precision 'bf16'; use 'fp16' or 'fp32'")


def _make_trainer(config: CfgNode, job: Job) -> SimpleTrainer:
    """Build in detectron2's order, without images: the first ones depend on the step."""
    detector = build_detector(config, job.trunk).train()
    optimizer = build_optimizer(config, detector)
    # Not detectron2's wrapper, which assigns a GPU even to a detector on the CPU.
    network = data_parallel(detector, job.device)
    precision = job.recipe.training.precision
    if precision == "fp32":
        return SimpleTrainer(network, None, optimizer)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    dtype = {"precision": torch.bfloat16} if precision == "bf16" else {}
    return AMPTrainer(network, None, optimizer, grad_scaler=scaler, **dtype)


def _hooks_between_steps(
    config: CfgNode, checkpointer: Checkpointer, job: Job, run_dir: Path, log: TrainingLog
) -> list[HookBase]:
    """Return the hooks after each step: statistics first, then evaluation, then saving."""
    detector: nn.Module = checkpointer.model
    chosen: list[HookBase] = [MetricsHook(log)] if is_main() else []
    precise = config.TEST.PRECISE_BN
    if precise.ENABLED and get_bn_modules(detector):
        first = partial(training_batches, config, job, start=0, num_workers=0)
        period = config.TEST.EVAL_PERIOD
        chosen.append(PreciseNormHook(period, detector, first, precise.NUM_ITER))
    save_best = partial(save_weights, detector, job)
    evaluations = Evaluations(job, run_dir / BEST_FILE, save_best, log)

    def detect() -> list[Prediction]:
        share_buffers(detector)  # evaluate the buffers that are saved
        return predict(detector, job)

    chosen.append(EvaluationHook(evaluations, detect))
    if is_main():
        chosen.append(hooks.PeriodicCheckpointer(checkpointer, config.SOLVER.CHECKPOINT_PERIOD))
    return chosen


def _run(trainer: SimpleTrainer, start: int, end: int, run_dir: Path) -> None:
    try:
        trainer.train(start, end)
    except LoopStopped:
        _log.info("stopped after iteration %d of %d, saved", trainer.iter + 1, end)
    except FloatingPointError as error:
        raise UserError(
            f"{error}; earlier checkpoints are in '{run_dir}'; lower solver.base_lr or warm up "
            "longer"
        ) from None
