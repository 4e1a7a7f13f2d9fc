"""Silence log messages of other libraries that do not concern users."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(loggers: tuple[str, ...], level: int) -> Iterator[None]:
    """Limit loggers to messages of at least ``level``."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, previous in before.items():
            logging.getLogger(name).setLevel(previous)
