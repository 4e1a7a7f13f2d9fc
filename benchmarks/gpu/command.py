"""``python -m benchmarks gpu``: measure all that a GPU can tell within a budget of minutes."""

import argparse
import os
from pathlib import Path

import torch

from benchmarks.catalogue import BENCHMARKS
from benchmarks.gpu.items import ITEMS, Item
from benchmarks.gpu.outcome import GPU_RESULTS, Outcome, write_outcome
from benchmarks.gpu.outcome_table import outcome_table
from benchmarks.gpu.run import LOG_FILE, TABLE_FILE, Job, outcomes_of, run_job
from benchmarks.images import CIFAR_BATCHES
from benchmarks.measure import write_result
from benchmarks.table import PAGE, draw_page
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Commands, say
from rsa_pretrain.plumbing.errors import UserError

SUMMARY = "measure all that a GPU can tell within a budget of minutes"

_FIRST_CUT = sorted((item for item in ITEMS if item.cut is not None), key=lambda item: item.cut)[:3]

_DESCRIPTION = f"""\
Measure all that a GPU can tell within a budget of minutes, in the order of worth:

  {", ".join(item.name for item in ITEMS[:7])},
  {", ".join(item.name for item in ITEMS[7:])}

Each item is a benchmark in its own process, under its own time limit; one that fails or is killed
is recorded with the reason. Where time is short, items are cut, first
{", ".join(item.name for item in _FIRST_CUT)}; never the tests, and never the comparison
of RSA with BYOL, which takes the time left.

FOLDER/ITEM/{LOG_FILE} has each item's output and FOLDER/{TABLE_FILE} the table, rewritten after
each item. Unless rehearsed, the results also replace those in benchmarks/results/. A rehearsal
compiles nothing. Exit code 0 if all items were measured, otherwise 1."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("gpu", help=SUMMARY, description=_DESCRIPTION)
    parser.add_argument(
        "--budget-minutes",
        metavar="M",
        type=_minutes,
        default=15.0,
        help="time for everything (default: 15)",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="default: runs/gpu, of a rehearsal runs/gpu-rehearsal",
    )
    parser.add_argument(
        "--data-root",
        metavar="FOLDER",
        type=Path,
        help=f"folder with {CIFAR_BATCHES} (default: $RSA_DATA/cifar10)",
    )
    parser.add_argument(
        "--only", metavar="ITEMS", type=_items, default=ITEMS, help="comma-separated; default: all"
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run every item on the CPU at sizes at which the numbers mean nothing",
    )
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    rehearsed = arguments.rehearse
    if not (rehearsed or torch.cuda.is_available()):
        raise UserError("torch sees no GPU; --rehearse runs the items on the CPU")
    out = arguments.out or Path("runs", "gpu-rehearsal" if rehearsed else "gpu")
    job = Job(
        items=arguments.only,
        device="cpu" if rehearsed else "cuda",
        out=out.resolve(),
        seconds=60 * arguments.budget_minutes,
        data_root=None if rehearsed else _data_root(arguments.data_root),
        shown=ITEMS,
    )
    code = run_job(job, lambda outcome: None if rehearsed else keep(outcome))
    say(outcome_table(ITEMS, outcomes_of(job.out)))
    say(f"table: {job.out / TABLE_FILE}")
    return code


def keep(outcome: Outcome) -> None:
    """Keep an outcome with the project's results, and its result as the benchmark's last one."""
    write_outcome(outcome, GPU_RESULTS)
    result = outcome.result
    if result is not None and result.benchmark == outcome.item:
        write_result(result)
    write_text(PAGE, draw_page(BENCHMARKS))


def _data_root(stated: Path | None) -> Path | None:
    """Return the folder with CIFAR-10, None if there is none.

    Raises:
        UserError: If the stated folder has none.
    """
    root = stated or Path(os.environ.get("RSA_DATA", ""), "cifar10")
    if (root / CIFAR_BATCHES).is_dir():
        return root.resolve()
    if stated is not None:
        raise UserError(f"'{stated}' has no folder {CIFAR_BATCHES}; --data-root should contain it")
    return None


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 24 * 60:
        raise argparse.ArgumentTypeError(f"expected minutes above 0, found '{text}'")
    return minutes


def _items(text: str) -> tuple[Item, ...]:
    names = text.split(",")
    unknown = [name for name in names if name not in {item.name for item in ITEMS}]
    if unknown:
        known = ", ".join(item.name for item in ITEMS)
        raise argparse.ArgumentTypeError(f"no item '{unknown[0]}'; expected some of {known}")
    return tuple(item for item in ITEMS if item.name in names)
