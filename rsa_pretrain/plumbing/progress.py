"""The progress bar every long command shows."""

import sys
from typing import Any

from tqdm import tqdm

from rsa_pretrain.plumbing.distributed import is_main


def progress_bar(total: int | None, label: str, unit: str, done: int = 0) -> "tqdm[Any]":
    """Open a bar with rate and time left; on a log file it prints a line every ten seconds.

    Of several processes only the main one shows it.

    Args:
        total: Units of the whole job; None if unknown.
        label: What is going on.
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
        dynamic_ncols=interactive,
        mininterval=0.2 if interactive else 10.0,
    )
