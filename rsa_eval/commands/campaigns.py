"""Share time budget, help text and exit code among the commands that run trials."""

import argparse
import signal
from typing import TYPE_CHECKING

from rsa_pretrain.plumbing.command_line import say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import exit_code

if TYPE_CHECKING:
    from rsa_eval.campaigns.campaign import Outcome

_TIME_IS_UP = exit_code(signal.SIGALRM)
_MOST_MINUTES = 366 * 24 * 60  # the system's timers have a limit

HOW_IT_RUNS = f"""\
Rerun the command to resume: evaluations already recorded for the same weights and settings are
skipped. A failure does not stop the rest; the exit code is then 2. SIGTERM, Ctrl-C and
--budget-minutes (exit code {_TIME_IS_UP}) save the training state and stop; evaluations that
cannot be saved midway, such as kNN, finish first. Under torchrun all processes share each training
run and each evaluation, and a failure ends the command."""
"""Paragraph for the commands' help."""


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add ``--budget-minutes``."""
    parser.add_argument(
        "--budget-minutes", metavar="N", type=_minutes, help="save the state and stop after this"
    )


def conclude(outcome: "Outcome") -> int:
    """Report the remaining work if it was stopped; return the exit code.

    Raises:
        UserError: If a trial failed; gives each reason once.
    """
    if outcome.stopped:
        say(_what_is_left(outcome))
        return outcome.stopped
    if outcome.failures:
        wanted = sum(len(trial.record_names) for trial in outcome.trials)
        raise UserError(
            f"{len(outcome.failures)} of {wanted} evaluations failed; rerun the command to retry: "
            f"{'; '.join(_failure_lines(outcome))}"
        )
    return 0


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= _MOST_MINUTES:
        raise argparse.ArgumentTypeError(
            f"expected minutes above 0 and up to {_MOST_MINUTES}, found '{text}'"
        )
    return minutes


def _what_is_left(outcome: "Outcome") -> str:
    from rsa_eval.campaigns.progress import RECORDED, evaluation_states, is_trained

    left: list[str] = []
    count = 0
    for trial in outcome.trials:
        for name, state in evaluation_states(trial).items():
            count += 1
            if state != RECORDED:
                whole = f"{name} of {trial.name}" if is_trained(trial) else trial.name
                left.append(f"{whole} ({state})")
    first = f", first {left[0]}" if left else ""
    return f"stopped; {len(left)} of {count} evaluations remain{first}; rerun to resume"


def _failure_lines(outcome: "Outcome") -> list[str]:
    """Return one line per reason, naming the evaluations that failed for it."""
    failed: dict[tuple[str, str], list[str]] = {}
    for (trial, record), message in outcome.failures.items():
        failed.setdefault((message, trial), []).append(record)
    whose: dict[str, list[str]] = {}
    for (message, trial), names in failed.items():
        whose.setdefault(message, []).append(f"{', '.join(names)} of {trial}")
    return [f"{'; '.join(parts)}: {message}" for message, parts in whose.items()]
