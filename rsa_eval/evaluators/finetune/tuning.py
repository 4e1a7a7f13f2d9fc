"""Fine-tune a backbone with a new linear layer on labelled images.

Several processes train one model: each takes its share of every batch, and the gradient is that of
the mean loss over the whole batch. BatchNorm's running statistics come from the main process.
"""

import copy
import math
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torchvision.transforms import v2

from rsa_eval.evaluators.finetune.settings import FinetuneConfig, TuningConfig
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.evaluators.shared.resumable import StateFile, run_to_end
from rsa_eval.features.forward import device_of
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.networks.interface import network_of
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject
from rsa_pretrain.components.optim import scaled_lr
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.loader import AugmentedImages, LabelledImages, iterate, make_loader
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.plumbing.distributed import sum_over_ranks, world_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.views.one_image import to_normalised_tensor, weak_augmentation

# One item per training step: this process's images, (n, 3, S, S), their labels, int64 (n,), and the
# size of the whole batch.
Steps = Generator[tuple[Tensor, Tensor, int], None, None]

_SCORED_AT_ONCE = 8192


class EvenOrder:
    """Order of the images: each once per epoch, in batches that differ by at most one image.

    A small last batch would harm BatchNorm's statistics or be too small to compute any.

    Args:
        num_images: Labelled images.
        tuning: Epochs and largest batch.
        seed: Decides, with the epoch, the permutation.

    Raises:
        UserError: If a process would get fewer than two images.
    """

    def __init__(self, num_images: int, tuning: TuningConfig, seed: int) -> None:
        self.num_images = num_images
        self.steps_per_epoch = math.ceil(num_images / tuning.batch_size)
        self.num_steps = tuning.epochs * self.steps_per_epoch
        self._seed = seed
        smallest = num_images // self.steps_per_epoch // world_size()
        if smallest < 2:
            raise UserError(
                f"{num_images} labelled images in batches of at most {tuning.batch_size} leave a "
                f"process {smallest} per step, and BatchNorm needs 2; use fewer processes, more "
                "labels (subset; null takes all) or another tuning.batch_size"
            )

    def shares(self, first_step: int) -> Iterator[tuple[list[tuple[int, int]], int]]:
        """Yield this process's (epoch, image) pairs of each step, and the whole batch's size."""
        for step in range(first_step, self.num_steps):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if batch == 0 or step == first_step:
                order = np.random.default_rng([self._seed, epoch]).permutation(self.num_images)
                batches = np.array_split(order, self.steps_per_epoch)
            images = batches[batch]
            own = own_share().rows(len(images))
            yield [(epoch, int(image)) for image in images[own.start : own.stop]], len(images)


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
    """

    def __init__(
        self, classifier: Classifier, config: FinetuneConfig, order: EvenOrder, file: StateFile
    ) -> None:
        self.classifier = classifier
        self.config = config
        self.order = order
        self.file = file
        self.device = device_of(classifier)
        tuning = config.tuning
        if shares_batchnorm(tuning, self.device):
            nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
        classifier.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            [
                {"params": classifier.backbone.parameters(), "base_lr": tuning.backbone_base_lr},
                {"params": classifier.head.parameters(), "base_lr": tuning.head_base_lr},
            ],
            lr=0.0,
            momentum=tuning.sgd_momentum,
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

    def run(self, steps: Steps) -> None:
        """Train to the end of the last epoch; all processes end with the same tensors.

        Args:
            steps: Batches from the current step on.

        Raises:
            UserError: If the loss stops being finite.
            Stopped: If a signal requested it, in all processes alike.
        """
        network = self._wrap()
        with closing(steps):
            take_step = partial(self._take_step, network, steps)
            minutes = self.config.save_every_minutes
            run_to_end(self, take_step, self.order.num_steps, "fine-tuning", minutes)
        if world_size() > 1:
            for buffer in self.classifier.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _take_step(self, network: nn.Module, steps: Steps) -> None:
        tuning = self.config.tuning
        epoch, batch = divmod(self.step, self.order.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(tuning, group["base_lr"], epoch)
        images, labels, batch_size = next(steps)
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(self.device, non_blocking=True)
        with autocast(self.config.precision, self.device):
            loss_sum = functional.cross_entropy(network(images), labels, reduction="sum")
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
        if batch == self.order.steps_per_epoch - 1:
            self._end_epoch(epoch)

    def _end_epoch(self, epoch: int) -> None:
        self.losses.append(self._loss_sum.item() / self.order.num_images)
        self._loss_sum.zero_()
        if not math.isfinite(self.losses[-1]):
            tuning = self.config.tuning
            raise UserError(
                f"the loss of fine-tuning is {self.losses[-1]} in epoch {epoch}; lower "
                f"tuning.backbone_base_lr (now {tuning.backbone_base_lr:g}) or "
                f"tuning.head_base_lr (now {tuning.head_base_lr:g})"
            )

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


def shares_batchnorm(tuning: TuningConfig, device: torch.device) -> bool:
    """Return whether BatchNorm is synchronised across processes; False for a single process."""
    return tuning.sync_batchnorm and world_size() > 1 and device.type == "cuda"


def learning_rate(tuning: TuningConfig, base_lr: float, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    passed = sum(epoch >= milestone for milestone in tuning.milestones)
    return scaled_lr(base_lr, tuning.batch_size) * tuning.gamma**passed


def training_steps(
    subject: Subject,
    images: ImageSet,
    order: EvenOrder,
    first_step: int,
    config: FinetuneConfig,
) -> Steps:
    """Yield this process's batches, with fresh augmentation each epoch.

    Args:
        subject: Supplies the pixel statistics.
        images: Labelled images.
        order: Images of each step.
        first_step: Step to start from.
        config: The evaluation.
    """
    data = config.data
    view = weak_augmentation(config.tuning.train_view, data.image_size, data.eval_interpolation)
    transform = v2.Compose([view, to_normalised_tensor(subject.mean, subject.std)])
    loader = make_loader(
        LabelledImages(AugmentedImages(images, transform, config.seed)),
        (keys for keys, _ in order.shares(first_step)),
        data.num_workers,
        subject.device,
    )
    with closing(iterate(loader)) as loaded:
        for (views, labels), (_, size) in zip(loaded, order.shares(first_step), strict=True):
            yield views, labels, size


@torch.no_grad()
def answers_of(head: nn.Module, test: LabelledFeatures) -> Answers:
    """Classify images by a head on a backbone's features."""
    device = device_of(head)
    parts = []
    for start in range(0, len(test.labels), _SCORED_AT_ONCE):
        rows = slice(start, start + _SCORED_AT_ONCE)
        scores = head(test.features[rows].to(device))
        parts.append(answer(scores, test.labels[rows].to(device)))
    return Answers.sound(parts)
