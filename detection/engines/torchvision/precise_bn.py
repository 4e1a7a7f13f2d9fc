"""Re-estimate BatchNorm statistics for fixed weights, replacing running averages.

Wu and Johnson 2021 (Rethinking "Batch" in BatchNorm), Section 3: with the weights fixed, the
statistics of many training batches are averaged.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from detection.engines.norm_statistics import update_bn_stats
from detection.engines.torchvision.detector import MaskRCNN
from detection.feeding.samples import TrainingSample, step_seed
from detection.job.job import Job
from rsa_pretrain.plumbing.distributed import rank

Batch = Sequence[TrainingSample]


def refresh_statistics(
    detector: MaskRCNN, batches: Iterator[Batch], num_batches: int, job: Job
) -> None:
    """Average the statistics of the trainable norms; frozen ones have none.

    Args:
        detector: In train mode.
        batches: At least ``num_batches`` of them.
        num_batches: Number to average.
        job: Provides the seed for sampling each batch's regions.
    """
    update_bn_stats(_Passes(detector, job), enumerate(batches), num_batches)


class _Passes(nn.Module):
    """Forward passes whose anchors and regions depend on the batch's index alone."""

    def __init__(self, detector: MaskRCNN, job: Job) -> None:
        super().__init__()
        self._detector = detector
        self._job = job

    def forward(self, numbered: tuple[int, Batch]) -> None:
        number, samples = numbered
        torch.manual_seed(step_seed(self._job.recipe.seed, number, rank()))
        self._detector(samples)
