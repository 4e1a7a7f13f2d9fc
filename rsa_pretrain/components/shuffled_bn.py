"""Shuffle images over processes, so that their BatchNorm statistics differ from the queries'."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from rsa_pretrain.plumbing.distributed import gather, rank, world_size


@torch.no_grad()
def shuffled_over_ranks(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Apply a network so that each process computes a random share of all processes' images.

    BatchNorm then sees another mix of images than the queries' (MoCo, Section 3.3, "Shuffling
    BN"). A single process has nothing to mix and just applies the network.

    Args:
        network: From (n, …) to (n, D).
        images: This process's images, (n, …), n the same in every process.

    Returns:
        The outputs for ``images``, in their order, without gradient.
    """
    if world_size() == 1:
        return network(images)
    everything = gather(images)
    order = torch.randperm(len(everything), device=images.device)
    dist.broadcast(order, src=0)
    mine = slice(rank() * len(images), (rank() + 1) * len(images))
    outputs = gather(network(everything[order[mine]]))
    return outputs[order.argsort()[mine]]
