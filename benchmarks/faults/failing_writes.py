"""Let file system calls of commands fail as on a full, broken or read-only disk."""

import errno
from collections.abc import Iterator, Sequence

from benchmarks.faults.jobs import Job
from benchmarks.faults.preload import Call
from benchmarks.faults.trials import Trial, undisturbed
from rsa_pretrain.plumbing.command_line import USER_ERROR_EXIT_CODE

ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")


def failing_trials(
    job: Job, calls: Sequence[Call], known: set[str], errors: Sequence[str]
) -> Iterator[tuple[str, Trial]]:
    """Yield trials of a job in which a call fails, for each place that it writes to.

    Args:
        job: The command.
        calls: Its calls when nothing fails; of those alike only the first fails.
        known: Calls that have failed in other jobs, to which these are added.
        errors: Names of the errors.

    Yields:
        The error's name, and the trial.
    """
    for call in calls:
        if call.what in known:
            continue
        known.add(call.what)
        for name in errors:
            error = getattr(errno, name)
            yield (
                name,
                Trial(
                    job,
                    undisturbed,
                    number=call.number,
                    error=error,
                    codes=(USER_ERROR_EXIT_CODE,),
                ),
            )
