"""Save and resume the state of a run of this engine.

Data order, augmentation and sampling are functions of (seed, step, process), so the detector, the
optimizer, the gradient scaler and the step are the whole state.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from detection.engines.torchvision.detector import build_detector, place
from detection.feeding.samples import initialisation_seed
from detection.job.job import Job
from detection.recipe.recipe import SolverConfig
from rsa_pretrain.components.optim import fused_sgd
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import (
    MODEL_FILE,
    load_checkpoint,
    save_checkpoint,
    save_tensors,
)
from rsa_pretrain.weights.restoring import restoring
from rsa_pretrain.weights.tensor_check import check_tensors, non_finite

_log = logging.getLogger(__name__)

BEST_FILE = Path("checkpoints") / "best" / MODEL_FILE
"""The best weights, in the run folder; its name distinguishes it from checkpoints."""
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


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


class DetectorState:
    """A detector in training, freshly initialised or resumed from a checkpoint.

    Args:
        job: The run.
    """

    def __init__(self, job: Job) -> None:
        recipe = job.recipe
        self._job = job
        torch.manual_seed(initialisation_seed(recipe.seed))
        detector = build_detector(recipe, job.trunk, job.num_classes)
        self.detector = place(detector, job.device).train()
        self.step = 0
        self.optimizer = fused_sgd(
            parameter_groups(self.detector, recipe.solver),
            lr=recipe.solver.schedule.lr,
            momentum=recipe.solver.sgd_momentum,
        )
        self.scaler = torch.amp.GradScaler(
            job.device.type, enabled=recipe.training.precision == "fp16"
        )

    def resume(self, folder: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            UserError: If it is damaged, or belongs to another backbone, other annotations or
                another detector.
        """
        tensors, metadata, state = load_checkpoint(folder)
        with restoring(f"'{folder}'"):
            self._job.check_same_start(metadata.parent, state["train_sha256"])
            expected = self.detector.state_dict()
            check_tensors(tensors, expected, f"'{folder}' as this recipe's detector")
            self.detector.load_state_dict(tensors, strict=True)
            self.optimizer.load_state_dict(state["optimizer"])
            _lay_out_alike(self.optimizer)
            self.scaler.load_state_dict(state["scaler"])
        assert metadata.step is not None, "a run's checkpoint has its step"
        self.step = metadata.step
        _log.info("resuming from '%s' at iteration %d", folder, self.step)

    def save(self, run_dir: Path) -> None:
        """Write a checkpoint.

        Raises:
            UserError: If a tensor is not finite; the earlier checkpoints stay.
        """
        tensors = self.detector.state_dict()
        _check_finite(tensors, self.step, run_dir)
        trainer_state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "train_sha256": self._job.train_sha256,
        }
        metadata, keep = self._job.metadata(self.step), self._job.recipe.training.keep_checkpoints
        save_checkpoint(run_dir, tensors, metadata, trainer_state, keep, self._job.notes)


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

    Raises:
        UserError: If a tensor is not finite; an earlier file stays.
    """
    tensors = detector.state_dict()
    _check_finite(tensors, step, file.parent)
    save_tensors(file, tensors, job.metadata(step), {**job.notes, **notes})


def _lay_out_alike(optimizer: torch.optim.Optimizer) -> None:
    """Lay momentum out in memory like its weights, also if another device saved it.

    The fused kernel walks through both at once and trusts that they match.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            state[name] = torch.empty_like(parameter).copy_(value)


def _check_finite(tensors: Mapping[str, Tensor], step: int, folder: Path) -> None:
    broken = non_finite(tensors)
    if broken:
        raise UserError(
            f"{len(broken)} tensors are not finite after iteration {step}; no checkpoint was "
            f"written over the earlier ones in '{folder}'"
        )
