"""A linear classifier trained on frozen features."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from rsa_eval.features import LabelledFeatures, device_of, forward_frozen
from rsa_eval.linear_config import LinearConfig, ProbeConfig
from rsa_eval.metrics import NOTHING_COUNTED, TopKCounts, count_top_k
from rsa_eval.subject import Subject
from rsa_pretrain.augment import to_normalised_tensor, weak_augmentation
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.loader import AugmentedImages, iterate, make_loader
from rsa_pretrain.progress import progress_bar

# One training step: features, float32 (N, D), and labels, int64 (N,), on the probe's device.
Batches = Iterator[tuple[Tensor, Tensor]]

_SCORED_AT_ONCE = 8192


@dataclass(frozen=True)
class TrainedProbe:
    """The classifier after its last epoch, and the mean loss of each epoch in nats."""

    head: nn.Linear
    losses: list[float]


def read_order(num_images: int, probe: ProbeConfig, seed: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the batches of all epochs as (epoch, image) pairs: each image once per epoch.

    An epoch's permutation depends on the seed and the epoch alone; its last batch may be partial.
    """
    for epoch in range(probe.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(num_images).tolist()
        for start in range(0, num_images, probe.batch_size):
            yield [(epoch, image) for image in order[start : start + probe.batch_size]]


def cached_batches(
    train: LabelledFeatures, probe: ProbeConfig, seed: int, device: torch.device
) -> Batches:
    """Yield the training steps from features that were extracted once."""
    features, labels = train.features.to(device), train.labels.to(device)
    for keys in read_order(len(labels), probe, seed):
        rows = torch.tensor([image for _, image in keys], device=device)
        yield features[rows], labels[rows]


def online_batches(subject: Subject, images: ImageSet, config: LinearConfig) -> Batches:
    """Yield the training steps from images that are augmented anew each epoch.

    Raises:
        UserError: If the images are unlabelled.
    """
    device = device_of(subject.backbone)
    labels = torch.tensor(images.require_labels())
    view = weak_augmentation(config.probe.train_view, config.data.image_size)
    transform = v2.Compose([view, to_normalised_tensor(subject.mean, subject.std)])
    order = list(read_order(len(images), config.probe, config.seed))
    loader = make_loader(
        AugmentedImages(images, transform, config.seed), order, config.data.num_workers, device
    )
    for keys, batch in zip(order, iterate(loader), strict=True):
        rows = [image for _, image in keys]
        yield forward_frozen(subject.backbone, batch, config), labels[rows].to(device)


def train_probe(
    batches: Batches, num_images: int, head: nn.Linear, probe: ProbeConfig
) -> TrainedProbe:
    """Train a classifier by SGD on the cross-entropy.

    Args:
        batches: The steps of all epochs.
        num_images: Training images, to tell the epochs apart.
        head: The initialised classifier, on its device; trained in place.
        probe: Schedule and optimizer.

    Raises:
        UserError: If the loss stops being finite.
    """
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=probe.lr,
        momentum=probe.sgd_momentum,
        weight_decay=probe.weight_decay,
        nesterov=probe.nesterov,
    )
    steps_per_epoch = math.ceil(num_images / probe.batch_size)
    losses: list[float] = []
    with progress_bar(probe.epochs * steps_per_epoch, "linear probe", "step") as bar:
        for epoch in range(probe.epochs):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(probe, epoch)
            loss_sum = torch.zeros((), device=head.weight.device)
            for _ in range(steps_per_epoch):
                features, labels = next(batches)
                loss = functional.cross_entropy(head(features), labels)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                loss_sum += loss.detach() * len(labels)
                bar.update()
            losses.append(loss_sum.item() / num_images)
            if not math.isfinite(losses[-1]):
                raise UserError(
                    f"the probe's loss is {losses[-1]} in epoch {epoch}; "
                    f"lower probe.base_lr (now {probe.base_lr:g})"
                )
    return TrainedProbe(head, losses)


def new_head(
    feature_dim: int, num_classes: int, probe: ProbeConfig, seed: int, device: torch.device
) -> nn.Linear:
    """Build the classifier: weights from N(0, ``init_std``²), biases 0."""
    head = nn.Linear(feature_dim, num_classes, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        head.weight.normal_(0.0, probe.init_std, generator=generator)
        head.bias.zero_()
    return head.to(device)


def learning_rate(probe: ProbeConfig, epoch: int) -> float:
    """Return the rate of an epoch, counted from 0."""
    passed = sum(epoch >= milestone for milestone in probe.milestones)
    return probe.lr * probe.gamma**passed


@torch.no_grad()
def score_probe(head: nn.Linear, test: LabelledFeatures) -> TopKCounts:
    """Count how often the classifier is right."""
    device = device_of(head)
    counts = NOTHING_COUNTED
    for start in range(0, len(test.labels), _SCORED_AT_ONCE):
        rows = slice(start, start + _SCORED_AT_ONCE)
        scores = head(test.features[rows].to(device))
        counts += count_top_k(scores, test.labels[rows].to(device))
    return counts
