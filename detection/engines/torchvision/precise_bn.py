"""BatchNorm statistics of the finished weights, in place of averages over moving ones.

Wu and Johnson 2021 (Rethinking "Batch" in BatchNorm), Section 3: the weights stay, the statistics
of many training batches are averaged.
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
    """Average the statistics of the norms that train; frozen ones have none.

    Args:
        detector: In train mode.
        batches: At least ``num_batches`` of them.
        num_batches: How many are averaged.
        job: Decides what the regions of each batch are drawn from.
    """
    update_bn_stats(_Passes(detector, job), enumerate(batches), num_batches)


class _Passes(nn.Module):
    """Forward passes whose anchors and regions are functions of the batch's number."""

    def __init__(self, detector: MaskRCNN, job: Job) -> None:
        super().__init__()
        self._detector = detector
        self._job = job

    def forward(self, numbered: tuple[int, Batch]) -> None:
        number, samples = numbered
        torch.manual_seed(step_seed(self._job.recipe.seed, number, rank()))
        self._detector(samples)
