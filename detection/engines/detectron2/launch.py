"""Start several processes on one machine or more by detectron2's ``launch``.

Each then looks as if ``torchrun`` had started it, so that other code needs no special case.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from detectron2.engine import launch
from torch.multiprocessing.spawn import ProcessExitedException

from rsa_pretrain.plumbing.command_line import run_command
from rsa_pretrain.plumbing.distributed import rank, world_size
from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class Processes:
    """Values of detectron2's ``--num-gpus`` and related options."""

    num_gpus: int
    """Processes on each machine."""
    num_machines: int
    machine_rank: int
    """Number of this machine, from 0."""
    dist_url: str
    """Where they meet: ``tcp://HOST:PORT``, or ``auto`` on one machine."""


def launch_processes(processes: Processes, command: Callable[[], int], *, on_cpu: bool) -> int:
    """Run a command in several processes that form a group.

    Args:
        processes: Number and place of the processes.
        command: Returns an exit code; is pickled.
        on_cpu: Whether the command computes on the CPU.

    Returns:
        0, or the exit code of the process that failed first.

    Raises:
        UserError: If these processes cannot be started here.
    """
    _check(processes, on_cpu)
    try:
        launch(
            _run_in_process,
            processes.num_gpus,
            num_machines=processes.num_machines,
            machine_rank=processes.machine_rank,
            dist_url=processes.dist_url,
            args=(processes.num_gpus, command),
        )
    except ProcessExitedException as error:
        return int(error.exit_code)
    return 0


def _check(processes: Processes, on_cpu: bool) -> None:
    if not 0 <= processes.machine_rank < processes.num_machines:
        raise UserError(
            f"--machine-rank {processes.machine_rank} is none of {processes.num_machines} machines"
        )
    if processes.num_machines > 1 and processes.dist_url == "auto":
        raise UserError("several machines need --dist-url tcp://HOST:PORT of the first one")
    found = torch.cuda.device_count()
    if found and on_cpu:
        raise UserError("detectron2's launch takes the GPUs of this machine; use torchrun instead")
    if 0 < found < processes.num_gpus:
        raise UserError(f"--num-gpus {processes.num_gpus}, but torch sees {found} GPUs here")


def _run_in_process(num_local: int, command: Callable[[], int]) -> None:
    os.environ |= {
        "RANK": str(rank()),
        "WORLD_SIZE": str(world_size()),
        "LOCAL_RANK": str(rank() % num_local),
        "LOCAL_WORLD_SIZE": str(num_local),
    }
    exit_code = run_command(command)
    if exit_code != 0:
        sys.exit(exit_code)
