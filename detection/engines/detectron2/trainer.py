"""Training by detectron2's own trainer, with its hooks and this toolkit's.

The loop, the optimizer, the schedule, precise BN and the form of the checkpoints are detectron2's;
a checkpoint is read by any detectron2 program. A resumed run ends where it would have ended.
"""

import inspect
import logging
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.env import seed_all_rng
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from detection.coco_eval import evaluate
from detection.engines.detectron2.checkpoints import (
    Checkpointer,
    check_checkpoint,
    make_checkpointer,
)
from detection.engines.detectron2.data import training_batches
from detection.engines.detectron2.detector import build_detector, make_config
from detection.engines.detectron2.hooks import (
    EvaluationHook,
    MetricsHook,
    PreciseNormHook,
    SeedHook,
    StopHook,
    Stopped,
)
from detection.engines.detectron2.predict import predict
from detection.job import Job
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.distributed import data_parallel, is_main, rank, world_size
from rsa_pretrain.errors import UserError
from rsa_pretrain.metrics_log import MetricsLog
from rsa_pretrain.stop_signal import StopSignal

logger = logging.getLogger(__name__)

CONFIG_FILE = "detectron2.yaml"

# It logs each error with its traceback; an error is reported once, where it ends the command.
logging.getLogger("detectron2.engine.train_loop").setLevel(logging.CRITICAL)


def train(job: Job, run_dir: Path, resume_from: Path | None, stop: StopSignal) -> nn.Module:
    """Fine-tune a detector to the end of its schedule, or to a stop signal.

    Args:
        job: The run.
        run_dir: Receives detectron2's config, metrics and checkpoints.
        resume_from: detectron2's checkpoint to continue from; None starts at iteration 0.
        stop: Asked between iterations; a checkpoint is saved before leaving.

    Returns:
        The detector in train mode, on the job's device.

    Raises:
        UserError: If the recipe cannot run here, the loss stops being finite (earlier checkpoints
            stay), an image is broken, or ``resume_from`` is of another trunk or other annotations.
        RuntimeError: If a trunk tensor did not reach the detector.
    """
    _check(job)
    config = make_config(job)
    folder = run_dir / "checkpoints"
    if is_main():
        write_text(run_dir / CONFIG_FILE, config.dump())
        folder.mkdir(exist_ok=True)
    seed_all_rng(job.recipe.seed + rank())
    trainer = _make_trainer(config, job)
    checkpointer = make_checkpointer(trainer.model, folder, job, trainer, lambda: trainer.iter + 1)
    trainer.register_hooks(_own_hooks(config, trainer, checkpointer, job))
    start = 0
    if resume_from is not None:
        check_checkpoint(resume_from, checkpointer.model)
        checkpointer.load(str(resume_from))
        start = trainer.iter + 1
        logger.info("resuming from '%s' at iteration %d", resume_from, start)
    batches = training_batches(config, job, start, job.recipe.data.num_workers)
    trainer.data_loader = batches
    with MetricsLog(run_dir, start) if is_main() else nullcontext() as log, closing(batches):
        trainer.register_hooks(_toolkit_hooks(job, trainer, log))
        trainer.register_hooks([StopHook(stop, checkpointer.save)])
        _run(trainer, start, config.SOLVER.MAX_ITER, run_dir)
    return trainer.model  # type: ignore[no-any-return]  # detectron2 has no type information


def _check(job: Job) -> None:
    batch_size, precision = job.recipe.solver.batch_size, job.recipe.training.precision
    if batch_size % world_size():
        raise UserError(
            f"solver.batch_size {batch_size} is not a multiple of the {world_size()} processes"
        )
    if precision != "fp32" and job.device.type != "cuda":
        raise UserError(f"precision '{precision}' needs a GPU in detectron2; use 'fp32'")
    if precision == "bf16" and "precision" not in inspect.signature(AMPTrainer).parameters:
        raise UserError("this detectron2's trainer has no precision 'bf16'; use 'fp16' or 'fp32'")


def _make_trainer(config: CfgNode, job: Job) -> SimpleTrainer:
    """Build in detectron2's order, without images: which come first depends on the step."""
    detector = build_detector(config, job.trunk).train()
    optimizer = build_optimizer(config, detector)
    # Not detectron2's wrapper: that names a GPU also for a detector that is on none.
    network = data_parallel(detector, job.device)
    precision = job.recipe.training.precision
    if precision == "fp32":
        return SimpleTrainer(network, None, optimizer)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    dtype = {"precision": torch.bfloat16} if precision == "bf16" else {}
    return AMPTrainer(network, None, optimizer, grad_scaler=scaler, **dtype)


def _own_hooks(
    config: CfgNode, trainer: SimpleTrainer, checkpointer: Checkpointer, job: Job
) -> list[HookBase]:
    """Return detectron2's hooks in its order: precise BN before what saves or evaluates."""
    schedule = build_lr_scheduler(config, trainer.optimizer)
    chosen: list[HookBase] = [
        SeedHook(job.recipe.seed),
        hooks.LRScheduler(trainer.optimizer, schedule),
    ]
    precise = config.TEST.PRECISE_BN
    if precise.ENABLED and get_bn_modules(trainer.model):
        first = partial(training_batches, config, job, start=0, num_workers=0)
        period = config.TEST.EVAL_PERIOD
        chosen.append(PreciseNormHook(period, trainer.model, first, precise.NUM_ITER))
    if is_main():
        chosen.append(hooks.PeriodicCheckpointer(checkpointer, config.SOLVER.CHECKPOINT_PERIOD))
    return chosen


def _toolkit_hooks(job: Job, trainer: SimpleTrainer, log: MetricsLog | None) -> list[HookBase]:
    training = job.recipe.training
    chosen: list[HookBase] = []
    if training.evaluate_every_iterations is not None:
        chosen.append(
            EvaluationHook(
                lambda: predict(trainer.model, job),
                lambda predictions: evaluate(job.test_set.tree, predictions, job.iou_types),
                training.evaluate_every_iterations,
                log,
            )
        )
    if log is not None:
        every, batch_size = training.log_every_iterations, job.recipe.solver.batch_size
        chosen.append(MetricsHook(log, every, batch_size))
    return chosen


def _run(trainer: SimpleTrainer, start: int, end: int, run_dir: Path) -> None:
    try:
        trainer.train(start, end)
    except Stopped:
        logger.info("stopped after iteration %d of %d, saved", trainer.iter + 1, end)
    except FloatingPointError as error:
        raise UserError(
            f"{error}; earlier checkpoints are in '{run_dir}'; lower solver.base_lr or warm up "
            "longer"
        ) from None
