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

MACHINES_FILE = "machines.json"


class Machine(Section):
    """The hardware that computed a run or a part of it."""

    hardware: str
    """The main process's GPU or processor."""
    num_processes: int
    """Training processes, one per GPU."""


def note_machine(run_dir: Path, device: torch.device) -> None:
    """Add this machine to the run's, unless it is the last one; for the main process.

    Raises:
        UserError: As ``read_machines``.
    """
    machines = read_machines(run_dir)
    here = Machine(hardware=describe_hardware(device), num_processes=world_size())
    if machines[-1:] != [here]:
        trees = [to_tree(machine) for machine in [*machines, here]]
        write_text(run_dir / MACHINES_FILE, json.dumps(trees, indent=2) + "\n")


def read_machines(run_dir: Path) -> list[Machine]:
    """Return a run's machines in the order of its parts; none if they are not recorded.

    Raises:
        UserError: If the file is damaged.
    """
    path = run_dir / MACHINES_FILE
    if not path.is_file():
        return []
    try:
        return TypeAdapter(list[Machine]).validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"'{path}' is damaged, expected a list of machines; restore or delete it"
        ) from None
