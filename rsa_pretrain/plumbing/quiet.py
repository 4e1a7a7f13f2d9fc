"""Loggers of other libraries, kept from telling users what is no concern of theirs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(loggers: tuple[str, ...], level: int) -> Iterator[None]:
    """Let loggers tell only what is at least as grave as ``level``."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, previous in before.items():
            logging.getLogger(name).setLevel(previous)
