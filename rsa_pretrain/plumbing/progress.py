"""Show the progress bar of every long command."""

import sys
from typing import Any

from tqdm import tqdm

from rsa_pretrain.plumbing.distributed import is_main
from rsa_pretrain.plumbing.standard_streams import ErrorStream


def progress_bar(total: int | None, label: str, unit: str, done: int = 0) -> "tqdm[Any]":
    """Open a bar with rate and time left; in a log file it prints a line every ten seconds.

    Only the main process shows it.

    Args:
        total: Units of the whole job; None if unknown.
        label: Title of the bar.
        unit: Name of a unit; rates are units per second, of bytes (``B``) in kB, MB, ….
        done: Units already done by an earlier run.
    """
    interactive = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=label,
        unit=unit,
        unit_scale=unit == "B",
        disable=not is_main(),
        file=ErrorStream(),
        dynamic_ncols=interactive,
        mininterval=0.2 if interactive else 10.0,
    )
