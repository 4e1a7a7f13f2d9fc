"""What the three command lines share: their errors, their output and their config options."""

import argparse
import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from pydantic import BaseModel

from rsa_pretrain.config_files import describe_keys
from rsa_pretrain.errors import UserError

USER_ERROR_EXIT_CODE = 2


def run_command(command: Callable[[], int]) -> int:
    """Run a command; turn a user's mistake into one ``error:`` line and exit code 2.

    Messages go to standard error through ``logging``, results to standard output.

    Args:
        command: Does the work and returns the exit code.

    Returns:
        The process's exit code.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return command()
    except UserError as error:
        message = " ".join(str(error).split())
    except OSError as error:
        if error.filename is None:
            raise
        message = f"'{error.filename}': {error.strerror}"
    sys.stderr.write(f"error: {message}\n")
    return USER_ERROR_EXIT_CODE


def say(text: str) -> None:
    """Write one line of a command's result to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are user errors, and whose help keeps its line breaks."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise ``UserError`` in place of printing the usage and exiting."""
        raise UserError(f"{message} (see {self.prog} --help)")


def add_overrides(parser: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """Let ``parser`` take ``section.key=value`` words, and list the keys in its help."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="settings that differ from the config file; the keys are listed below",
    )
    parser.epilog = f"config keys:\n{describe_keys(model)}"
