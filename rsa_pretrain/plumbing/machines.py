"""Record the machines a run was trained on: rates are comparable only on equal ones."""

import json
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.files import Section, to_tree
from rsa_pretrain.plumbing.device import describe_hardware
from rsa_pretrain.plumbing.distributed import world_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.regular_files import is_there
from rsa_pretrain.plumbing.text_files import read_limited

MACHINES_FILE = "machines.json"


class Machine(Section):
    """The hardware that computed a run or a part of it."""

    hardware: str
    """The main process's GPU or processor."""
    num_processes: int
    """Training processes, one per GPU."""
    steps: str | None = None
    """Mode of a GPU's steps: "captured" as a CUDA graph, or "eager", with the reason; null for a
    CPU, and for runs older than the setting."""


def note_machine(run_dir: Path, device: torch.device, steps: str | None = None) -> None:
    """Add this machine to the run's, unless it is the last one; for the main process.

    Args:
        run_dir: Folder of the run.
        device: Device of the run.
        steps: Mode of the steps.

    Raises:
        UserError: As ``read_machines``.
    """
    machines = read_machines(run_dir)
    here = Machine(hardware=describe_hardware(device), num_processes=world_size(), steps=steps)
    if machines[-1:] != [here]:
        _write(run_dir, [*machines, here])


def correct_machine(run_dir: Path, steps: str) -> None:
    """Change how the last machine ran the steps; for the main process.

    Raises:
        UserError: As ``read_machines``.
    """
    *before, last = read_machines(run_dir)
    _write(run_dir, [*before, last.model_copy(update={"steps": steps})])


def _write(run_dir: Path, machines: list[Machine]) -> None:
    trees = [to_tree(machine) for machine in machines]
    write_text(run_dir / MACHINES_FILE, json.dumps(trees, indent=2) + "\n")


def read_machines(run_dir: Path) -> list[Machine]:
    """Return a run's machines in the order of its parts; none if they are not recorded.

    Raises:
        UserError: If the file is damaged.
    """
    path = run_dir / MACHINES_FILE
    if not is_there(path):
        return []
    content = read_limited(path)
    try:
        return TypeAdapter(list[Machine]).validate_json(content)
    except ValidationError:
        raise UserError(
            f"'{path}' is damaged, expected a list of machines; restore or delete it"
        ) from None
