"""``rsa-pretrain reproduce``: whole rows of the paper's tables."""

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from rsa_eval.commands.outputs import check_output_folder
from rsa_eval.commands.words import split_words
from rsa_eval.reproduction.listing import Listing, Measure
from rsa_eval.reproduction.rows import ROWS, Row, find_rows, select_rows
from rsa_eval.reproduction.runner import Makers, make_trials
from rsa_eval.reproduction.trials import CHANGEABLE, RECORDED, BackboneTrial, Trial, plan_trial
from rsa_pretrain.command_line import Commands, Parser, say, whole_numbers
from rsa_pretrain.config import refuse_another_run
from rsa_pretrain.errors import UserError
from rsa_pretrain.stop_signal import TimeLimit, exit_code

_TIME_IS_UP = exit_code(signal.SIGALRM)
_MOST_MINUTES = 366 * 24 * 60  # the system's clocks do not take any number

_DESCRIPTION = f"""\
Make every ROW with every seed: pretraining, kNN, linear evaluation by the paper's protocol, their
records. A row is TABLE/DATA_SET/NAME, or what stands before it for all rows below
(table1/cifar10); --list names them. Rows that show the same run in several tables share it.

Runs lie in OUT/ROW/seed-S. What is small of them (config.yaml, metrics.jsonl, machines.json,
records/*.json) is kept in RESULTS/ROW/seed-S.

The same command goes on where it stopped, also on another machine that was given OUT, with
data.root and other settings that leave the result what it is. SIGTERM and Ctrl-C stop a training
with its state saved. So does --budget-minutes; the exit code is then {_TIME_IS_UP}. What cannot be
saved half-way, as kNN, is finished first. torchrun works as with run."""

_MEASURED = """\
GiB and hours: pretraining by one process here, from one step on generated images: the GPU's memory,
or without one the process's. Evaluation is not in them."""
_NOT_MEASURED = "GiB and hours of pretraining: --list --measure ROW"

_EXAMPLES = """\
examples:
  rsa-pretrain reproduce table1/cifar10/rsa-decay data.root=data
  rsa-pretrain reproduce study/cifar10 --seeds 0,1 --budget-minutes 90 data.root=data
  rsa-pretrain reproduce --list data.root=data
  rsa-pretrain reproduce --list --measure table1/cifar10/rsa-decay
  torchrun --nproc-per-node=8 -m rsa_pretrain reproduce table4/imagenet/rsa-100ep \\
      data.root=data/imagenet"""


def add(commands: Commands, makers: Makers, measure: Measure) -> None:
    """Add the command to the parser.

    Args:
        commands: The parser's commands.
        makers: What trains runs and detectors.
        measure: Times a step of a run.
    """
    parser = commands.add_parser(
        "reproduce",
        help="make whole rows of the paper's tables",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n\nsettings that may differ: {', '.join(CHANGEABLE)}",
    )
    _add_options(parser)
    parser.usage = "rsa-pretrain reproduce [options] [ROW ...] [section.key=value ...]"
    parser.set_defaults(
        takes_overrides=True,
        command=lambda arguments: _reproduce(arguments, makers, measure),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "--seeds", metavar="S,…", type=whole_numbers, default=[0], help="seeds of each (default: 0)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("runs/reproduce"),
        help="folder of the runs (default: %(default)s)",
    )
    parser.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("results"),
        help="folder of what is kept (default: %(default)s)",
    )
    parser.add_argument(
        "--budget-minutes", metavar="N", type=_minutes, help="stop after this time, state saved"
    )
    parser.add_argument(
        "--list", action="store_true", help="name the rows, what they need and how far they are"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with --list ROW: time steps of their networks and batches on this machine",
    )
    parser.add_argument(
        "--rows",
        metavar="YAML",
        type=Path,
        default=ROWS,
        help="what makes each row: a file like configs/paper.yaml (default: that)",
    )


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= _MOST_MINUTES:
        raise argparse.ArgumentTypeError(
            f"expected minutes above 0 and at most {_MOST_MINUTES}, found '{text}'"
        )
    return minutes


def _reproduce(arguments: argparse.Namespace, makers: Makers, measure: Measure) -> int:
    words, overrides = split_words(arguments.overrides)
    every = find_rows(arguments.rows)
    rows = select_rows(every, [str(word) for word in words])
    if arguments.measure and not (arguments.list and rows):
        raise UserError("--measure goes with --list and the ROWs to measure")
    if arguments.list:
        listing = Listing(arguments.out, overrides, measure if arguments.measure else None)
        say(listing.table(rows or every))
        say(_MEASURED if arguments.measure else _NOT_MEASURED)
        return 0
    check_output_folder(arguments.out)
    check_output_folder(arguments.results, "--results")
    trials = _plan(rows, arguments.seeds, arguments.out, overrides)
    with TimeLimit(arguments.budget_minutes) as limit:
        code = make_trials(trials, makers, arguments.results, limit)
    if code:
        say(_what_is_left(trials))
    else:
        say(f"recorded: {len(trials)} of {len(trials)}, kept in '{arguments.results}'")
    return code


def _plan(
    rows: Sequence[Row], seeds: Sequence[int], out: Path, overrides: Sequence[str]
) -> list[Trial]:
    """Plan every row with the first seed, then with the next; each run once."""
    here = {row.home: row for row in rows if row.work is not None}
    if not here:
        quoted = ", ".join(row.name for row in rows)
        raise UserError(
            f"no method of these rows is here, the paper quotes them: {quoted}"
            if rows
            else "name a ROW, or several; --list shows them"
        )
    trials = [
        plan_trial(row, seed, out, overrides)
        for seed in dict.fromkeys(seeds)
        for row in here.values()
    ]
    for trial in trials:
        if isinstance(trial, BackboneTrial):
            refuse_another_run(trial.config)
    return trials


def _what_is_left(trials: Sequence[Trial]) -> str:
    left = [trial for trial in trials if trial.status() != RECORDED]
    if not left:
        return f"stopped; all {len(trials)} runs are recorded, the same command keeps the rest"
    return (
        f"stopped; {len(left)} of {len(trials)} runs are left, first {left[0].name} "
        f"({left[0].status()}); the same command goes on"
    )
