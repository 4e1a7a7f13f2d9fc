"""Plan how much of a comparison is in memory at a time."""

import math
from dataclasses import dataclass

import torch

from rsa_eval.evaluators.shared.selection import reads_are_free
from rsa_eval.features.placement import spare_bytes
from rsa_eval.features.share import Share
from rsa_pretrain.plumbing.distributed import min_over_ranks
from rsa_pretrain.plumbing.memory import available_memory

_MIB = 2**20
_USUAL_MIB = 512
_FEWEST_MIB = 16
_MOST_SIMILARITIES = 2**31 - 1


@dataclass(frozen=True)
class ChunkPlan:
    """Number of queries and of bank rows compared at a time."""

    num_queries: int
    num_rows: int


def budget_on(device: torch.device, budget_mib: int | None, share: Share) -> int:
    """Return a budget in MiB, the same in all processes.

    Args:
        device: Where the comparison runs.
        budget_mib: The budget if it is set. None takes 512 on a CPU but no more than a quarter of
            the memory that is available, and on a GPU a quarter of its free memory but no less than
            512: what other work has freed may be usable yet not count as free.
        share: This process's part of the comparison.
    """
    if budget_mib is not None:
        return budget_mib
    if device.type == "cuda":
        found = max(_USUAL_MIB, spare_bytes(device) // _MIB)
    else:
        free = available_memory()
        most = _USUAL_MIB if free is None else free.num_bytes // 4 // _MIB
        found = max(_FEWEST_MIB, min(_USUAL_MIB, most))
    return min_over_ranks(found) if share.count > 1 else found


def plan_chunks(
    budget_mib: int,
    device: torch.device,
    num_queries: int,
    width: int,
    k: int,
    num_classes: int,
) -> ChunkPlan:
    """Choose the largest chunks that fit a budget, in MiB, with a quarter of it for the queries.

    The budget covers the float32 copies of both sides, their similarities with a mask (on a GPU
    also with column numbers), the neighbour lists during merging, and the class scores. A chunk has
    fewer than 2**31 similarities, the limit of some CUDA kernels.
    """
    budget = budget_mib * _MIB
    query_bytes = 4 * width + 80 * k + 20 * num_classes
    similarity_bytes = 5 if reads_are_free(device) else 9
    most_queries = max(1, budget // 4 // query_bytes)
    queries = math.ceil(num_queries / math.ceil(num_queries / most_queries))
    rows = (budget - queries * query_bytes) // (4 * width + similarity_bytes * queries)
    return ChunkPlan(queries, max(1, min(rows, _MOST_SIMILARITIES // queries)))
