"""Fine-tune a backbone with a new linear layer on labelled images.

Several processes train one model: each takes its share of every batch, and the gradient is that of
the mean loss over the whole batch. BatchNorm's running statistics come from the main process.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from rsa_eval.evaluators.finetune.batches import EvenOrder, Steps
from rsa_eval.evaluators.finetune.settings import FinetuneConfig, TuningConfig
from rsa_eval.evaluators.shared.resumable import StateFile, run_to_end
from rsa_eval.features.forward import device_of
from rsa_eval.features.networks.interface import network_of
from rsa_pretrain.components.memory_layout import training_layout
from rsa_pretrain.components.optim import scaled_lr
from rsa_pretrain.components.schedules import cosine
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.plumbing.distributed import rank, sum_over_ranks, world_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.seeded import seeded


class Diverged(UserError):
    """The loss of a training, or an answer of the trained network, is not finite.

    Args:
        reason: The value found, and when.
        config: The training's settings, for advice.
    """

    def __init__(self, reason: str, config: FinetuneConfig) -> None:
        self.reason = reason
        tuning = config.tuning
        advice = (
            f"lower tuning.backbone_base_lr (now {tuning.backbone_base_lr:g}) or "
            f"tuning.head_base_lr (now {tuning.head_base_lr:g})"
        )
        if config.grid.base_lr:
            advice = f"lower grid.base_lr (here {tuning.head_base_lr:g})"
        super().__init__(f"{reason}; {advice}")


class Classifier(nn.Module):
    """A copy of a backbone with a new linear layer on top.

    Args:
        backbone: Copied; the original is unchanged.
        num_classes: Outputs of the linear layer, initialised as by ``nn.Linear``.
        seed: Seed of its initialisation.

    Raises:
        UserError: If the backbone cannot be copied or has nothing to train.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = _trainable_copy(backbone)
        with seeded(seed):
            head = nn.Linear(network_of(backbone).forward_width(), num_classes)
        self.head = head.to(device_of(backbone))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (N, C), for normalised images."""
        logits: Tensor = self.head(self.backbone(images))
        return logits


def _trainable_copy(backbone: nn.Module) -> nn.Module:
    try:
        copied = copy.deepcopy(backbone).requires_grad_(True)
    # A module of a user's may hold anything.
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"the network cannot be copied for fine-tuning: {error}") from error
    if not any(True for _ in copied.parameters()):
        raise UserError("the network has no parameters, so there is nothing to fine-tune")
    return copied


class Tuning:
    """One fine-tuning run, new or resumed.

    Args:
        classifier: Trained in place.
        config: The evaluation.
        order: Images of each step.
        file: Saved training state; resumed from if it exists.
        loss: Of logits and labels, summed over the images.
    """

    def __init__(
        self,
        classifier: Classifier,
        config: FinetuneConfig,
        order: EvenOrder,
        file: StateFile,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.classifier = classifier
        self.config = config
        self.order = order
        self.file = file
        self.loss = loss
        self.device = device_of(classifier)
        tuning = config.tuning
        if shares_batchnorm(tuning, self.device):
            nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
        if tuning.bn_momentum == "by_epoch_length":
            set_bn_momentum(classifier, order.steps_per_epoch)
        self._layout = training_layout(classifier, self.device)
        classifier.to(memory_format=self._layout).train()
        self.optimizer = torch.optim.SGD(
            [
                {"params": classifier.backbone.parameters(), "base_lr": tuning.backbone_base_lr},
                {"params": classifier.head.parameters(), "base_lr": tuning.head_base_lr},
            ],
            lr=0.0,
            momentum=tuning.sgd_momentum,
            nesterov=tuning.nesterov,
            weight_decay=tuning.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.step = 0
        self.losses: list[float] = []
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._restore()

    def save(self) -> None:
        """Write the state needed to resume, from the main process."""
        self.file.write(
            {
                "step": self.step,
                "losses": self.losses,
                "loss_sum": self._loss_sum.cpu(),
                "classifier": self.classifier.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
        )

    def run(self, steps: Steps, label: str = "fine-tuning") -> None:
        """Take the remaining steps; all processes end with the same tensors.

        Args:
            steps: Batches from the current step on.
            label: Title of the progress bar.

        Raises:
            Diverged: If the loss stops being finite.
            Stopped: If a signal requested it, in all processes alike.
        """
        network = self._wrap()
        with closing(steps):
            take_step = partial(self._take_step, network, steps)
            minutes = self.config.save_every_minutes
            run_to_end(self, take_step, self.order.num_steps, label, minutes)
        if world_size() > 1:
            for buffer in self.classifier.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _take_step(self, network: nn.Module, steps: Steps) -> None:
        tuning = self.config.tuning
        epoch, batch = divmod(self.step, self.order.steps_per_epoch)
        for group in self.optimizer.param_groups:
            progress = self.step / self.order.num_steps
            group["lr"] = learning_rate(tuning, group["base_lr"], epoch, progress)
        images, labels, batch_size = next(steps)
        images = images.to(self.device, non_blocking=True, memory_format=self._layout)
        labels = labels.to(self.device, non_blocking=True)
        draws = _draws_of_step(self.config.seed, self.step, self.device)
        with draws, autocast(self.config.precision, self.device):
            loss_sum = self.loss(network(images), labels)
        self.optimizer.zero_grad()
        # DistributedDataParallel divides the sum of gradients by the number of processes.
        loss = loss_sum * (world_size() / batch_size)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        every = loss_sum.detach().double()
        sum_over_ranks(every)
        self._loss_sum += every
        self.step += 1
        if batch == self.order.steps_per_epoch - 1 or self.step == self.order.num_steps:
            self._end_epoch(epoch, self.order.num_images_in(batch + 1))

    def _end_epoch(self, epoch: int, num_images: int) -> None:
        self.losses.append(self._loss_sum.item() / num_images)
        self._loss_sum.zero_()
        if not math.isfinite(self.losses[-1]):
            reason = f"the loss of fine-tuning is {self.losses[-1]} in epoch {epoch}"
            raise Diverged(reason, self.config)

    def _wrap(self) -> nn.Module:
        if world_size() == 1:
            return self.classifier
        devices = [self.device] if self.device.type == "cuda" else None
        network = network_of(self.classifier.backbone)
        return DistributedDataParallel(
            self.classifier,
            device_ids=devices,
            find_unused_parameters=not network.uses_every_parameter,
        )

    def _restore(self) -> None:
        content: dict[str, Any] | None = self.file.read()
        if content is None:
            return
        self.classifier.load_state_dict(content["classifier"], strict=True)
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self._loss_sum.copy_(content["loss_sum"])
        self.step, self.losses = content["step"], content["losses"]


@contextmanager
def _draws_of_step(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Let dropout draw by seed, step and process alone, so that a resumed run draws alike."""
    sequence = np.random.SeedSequence([seed, step, rank()])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        yield


def shares_batchnorm(tuning: TuningConfig, device: torch.device) -> bool:
    """Return whether BatchNorm is synchronised across processes; False for a single process."""
    return tuning.sync_batchnorm and world_size() > 1 and device.type == "cuda"


def set_bn_momentum(network: nn.Module, steps_per_epoch: int) -> None:
    """Set the share of BatchNorm's running statistics that a step keeps to max(1 - 10/s, 0.9).

    Torch's own momentum is the share that a step replaces, one minus that: min(10/s, 0.1).

    Args:
        network: Changed in place.
        steps_per_epoch: s.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = min(10 / steps_per_epoch, 0.1)


def learning_rate(tuning: TuningConfig, base_lr: float, epoch: int, progress: float) -> float:
    """Return the learning rate of a step.

    Args:
        tuning: The schedule and the batch size.
        base_lr: Rate for a batch of 256 before any decay.
        epoch: Epoch of the step, counted from 0.
        progress: Share of all steps taken before it.
    """
    if tuning.schedule == "cosine":
        return cosine(scaled_lr(base_lr, tuning.batch_size), 0.0, progress)
    passed = sum(epoch >= milestone for milestone in tuning.milestones)
    return scaled_lr(base_lr, tuning.batch_size) * tuning.gamma**passed
