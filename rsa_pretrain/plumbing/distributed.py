"""Train in several processes: their ranks, what they exchange and how they stop.

One process per device, started by ``torchrun`` (or anything that sets its environment variables
``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``). Without these
variables every function here works as for a single process.
"""

import inspect
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rsa_pretrain.plumbing.errors import UserError

# What the backends say when another process is gone.
_LOST_PEER = re.compile(
    r"gloo|nccl|TCPStore|connection (closed|reset|refused)|timed out", re.IGNORECASE
)


def rank() -> int:
    """Return this process's number, 0 for a single process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 for a single one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Return this process's number on its machine, which is its GPU's number."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """Return whether this is the process that writes files and shows progress."""
    return rank() == 0


def wait_for_all() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        dist.barrier()


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a module to average its gradients over the processes; a single process needs no wrap.

    Each process keeps its own running statistics.

    Args:
        module: On ``device``.
        device: Device of this process.
    """
    if world_size() == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    # torch 2.15 has a new name for this.
    known = inspect.signature(DistributedDataParallel).parameters
    name = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in known)
    local_buffers: dict[str, Any] = {name: False}
    return DistributedDataParallel(module, device_ids=devices, **local_buffers)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes for the block, over NCCL between GPUs and Gloo otherwise.

    Args:
        device: Device of this process.

    Raises:
        UserError: If the others cannot be joined, or one is lost; says how to resume.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:  # torch's own network errors are RuntimeErrors
        raise UserError(
            f"cannot join the other processes ({_first_line(error)}); start them with torchrun, or "
            "set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each"
        ) from None
    try:
        yield
        dist.barrier()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _LOST_PEER.search(str(error)):
            raise
        raise UserError(
            f"lost contact with another process ({_first_line(error)}); the job ends here; "
            "rerun the command to resume (pretraining: with --resume)"
        ) from None
    # Not after an error: tearing down may wait for processes that have ended.
    dist.destroy_process_group()


def gather(tensor: Tensor) -> Tensor:
    """Concatenate the tensors of all processes along dimension 0 by rank, without gradient.

    Args:
        tensor: Of the same shape in every process.
    """
    if world_size() == 1:
        return tensor.detach()
    own = tensor.detach().contiguous()  # backends copy memory, whatever its order
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Gather like ``gather``; each part receives the gradients of all processes' losses."""
    if world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def mean_over_ranks(values: Tensor) -> Tensor:
    """Average a tensor of the same shape over the processes."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()


def sum_over_ranks(values: Tensor) -> None:
    """Add up a tensor of the same shape over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)


def share_buffers(module: nn.Module) -> None:
    """Broadcast the main process's buffers, the ones that are saved, to all processes."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def min_over_ranks(number: int) -> int:
    """Return the smallest of the processes' numbers."""
    if world_size() == 1:
        return number
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    smallest = torch.tensor(number, device=device)
    dist.all_reduce(smallest, dist.ReduceOp.MIN)
    return int(smallest)


@contextmanager
def failing_together() -> Iterator[None]:
    """Fail in all processes if one raises a user error in the block, instead of deadlocking.

    Raises:
        UserError: The original error in the process that failed; a notice in the others.
    """
    failure = None
    try:
        yield
    except UserError as error:
        failure = error
    if not min_over_ranks(int(failure is None)):
        raise failure or UserError("another process failed; see its error")


def text_of_main(text: str) -> str:
    """Return the main process's text in every process."""
    if world_size() == 1:
        return text
    texts = [text]
    dist.broadcast_object_list(texts, src=0)
    return texts[0]


class StopVote:
    """Lets processes agree to stop at the same step, one after the first request.

    A step's vote is read at the next step, when it has long arrived, so no step waits for it.
    """

    def __init__(self) -> None:
        self._group: Any = _vote_group(dist.group.WORLD) if world_size() > 1 else None
        self._votes: list[tuple[Any, Tensor]] = []

    def agree(self, received: signal.Signals | None) -> signal.Signals | None:
        """Submit this process's signal, if any; return the signal all stop for, if any."""
        if self._group is None:
            return received
        vote = torch.tensor(0 if received is None else int(received))
        work: Any = dist.all_reduce(vote, dist.ReduceOp.MAX, self._group, async_op=True)
        self._votes.append((work, vote))
        if len(self._votes) == 1:
            return None
        earlier, result = self._votes.pop(0)
        earlier.wait()
        return signal.Signals(int(result)) if int(result) else None


@cache
def _vote_group(world: Any) -> Any:
    """Return the one group of all votes: each group keeps connections open to the end."""
    return dist.new_group(backend="gloo")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        context.num_rows = len(tensor)
        return gather(tensor)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[rank() * context.num_rows :][: context.num_rows]
