"""Training by detectron2's own trainer, with its hooks and this toolkit's.

The loop, the optimizer, the schedule, the loader, precise BN and the checkpoints are detectron2's;
a checkpoint is read by any detectron2 program. On resumption the data order starts anew, as there.
"""

import inspect
import logging
from contextlib import nullcontext
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.env import seed_all_rng
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from detection.coco_eval import evaluate
from detection.engines.detectron2.data import (
    explained_worker_errors,
    register_train,
    train_loader,
)
from detection.engines.detectron2.detector import build_detector, make_config
from detection.engines.detectron2.hooks import (
    EvaluationHook,
    MetricsHook,
    Provenance,
    StopHook,
    Stopped,
)
from detection.engines.detectron2.predict import predict
from detection.job import Job
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.distributed import data_parallel, is_main, rank, world_size
from rsa_pretrain.errors import UserError
from rsa_pretrain.foreign.file_content import read_checkpoint_file
from rsa_pretrain.metrics_log import MetricsLog
from rsa_pretrain.stop_signal import StopSignal
from rsa_pretrain.tensor_check import check_tensors

logger = logging.getLogger(__name__)

CONFIG_FILE = "detectron2.yaml"
_POINTER = "last_checkpoint"
_MODEL_PREFIX = "model/"

# It logs each error with its traceback; an error is reported once, where it ends the command.
logging.getLogger("detectron2.engine.train_loop").setLevel(logging.CRITICAL)


def newest_checkpoint(run_dir: Path) -> Path | None:
    """Return the file that detectron2 wrote last."""
    pointer = run_dir / "checkpoints" / _POINTER
    if not pointer.is_file():
        return None
    return pointer.parent / pointer.read_text(encoding="utf-8").strip()


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
    register_train(job)
    seed_all_rng(job.recipe.seed + rank())
    trainer = _make_trainer(config, job)
    checkpointer = DetectionCheckpointer(
        trainer.model,
        str(folder),
        trainer=trainer,
        rsa_toolkit=Provenance(job, lambda: trainer.iter + 1),
    )
    trainer.register_hooks(_own_hooks(config, trainer, checkpointer, job))
    start = 0
    if resume_from is not None:
        _check_checkpoint(resume_from, checkpointer.model)
        checkpointer.load(str(resume_from))
        start = trainer.iter + 1
        logger.info("resuming from '%s' at iteration %d", resume_from, start)
    with MetricsLog(run_dir, start) if is_main() else nullcontext() as log:
        trainer.register_hooks(_toolkit_hooks(job, trainer, log))
        trainer.register_hooks([StopHook(stop, checkpointer.save)])
        _run(trainer, start, config.SOLVER.MAX_ITER, run_dir)
    return trainer.model  # type: ignore[no-any-return]  # detectron2 has no type information


def _check_checkpoint(path: Path, detector: nn.Module) -> None:
    """Refuse, where detectron2 would only warn, what is not exactly this run's checkpoint."""
    content = read_checkpoint_file(path)
    found = {
        name.removeprefix(_MODEL_PREFIX): tensor
        for name, tensor in content.tensors.items()
        if name.startswith(_MODEL_PREFIX)
    }
    check_tensors(found, detector.state_dict(), f"'{path}' as this recipe's detector")
    if not any(name.startswith("rsa_toolkit/") for name in content.values):
        raise UserError(f"'{path}' is no checkpoint of this toolkit's runs; it cannot be resumed")


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
    """Build in detectron2's order: each part draws its random numbers after the one before."""
    detector = build_detector(config, job.trunk).train()
    optimizer = build_optimizer(config, detector)
    loader = train_loader(config)
    # Not detectron2's wrapper: that names a GPU also for a detector that is on none.
    network = data_parallel(detector, job.device)
    precision = job.recipe.training.precision
    if precision == "fp32":
        return SimpleTrainer(network, loader, optimizer)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    dtype = {"precision": torch.bfloat16} if precision == "bf16" else {}
    return AMPTrainer(network, loader, optimizer, grad_scaler=scaler, **dtype)


def _own_hooks(
    config: CfgNode, trainer: SimpleTrainer, checkpointer: DetectionCheckpointer, job: Job
) -> list[HookBase]:
    """Return detectron2's hooks in its order: precise BN before what saves or evaluates."""
    schedule = build_lr_scheduler(config, trainer.optimizer)
    chosen: list[HookBase] = [hooks.LRScheduler(trainer.optimizer, schedule)]
    precise = config.TEST.PRECISE_BN
    if precise.ENABLED and get_bn_modules(trainer.model):
        alone = config.clone()
        alone.defrost()
        alone.DATALOADER.NUM_WORKERS = 0
        chosen.append(
            hooks.PreciseBN(
                config.TEST.EVAL_PERIOD, trainer.model, train_loader(alone), precise.NUM_ITER
            )
        )
    if is_main():
        keep = job.recipe.training.keep_checkpoints
        period = config.SOLVER.CHECKPOINT_PERIOD
        chosen.append(hooks.PeriodicCheckpointer(checkpointer, period, max_to_keep=keep))
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
        with explained_worker_errors():
            trainer.train(start, end)
    except Stopped:
        logger.info("stopped after iteration %d of %d, saved", trainer.iter + 1, end)
    except FloatingPointError as error:
        raise UserError(
            f"{error}; earlier checkpoints are in '{run_dir}'; lower solver.base_lr or warm up "
            "longer"
        ) from None
