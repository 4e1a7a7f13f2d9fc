"""Share commands, errors, output and config options between the three command lines."""

import argparse
import difflib
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import missing_extra
from rsa_pretrain.plumbing.failures import describe_error, print_unless_raised, why_failed
from rsa_pretrain.plumbing.import_names import check_import_names
from rsa_pretrain.plumbing.loader_processes import end_loader_processes
from rsa_pretrain.plumbing.parent_process import stop_with_launcher
from rsa_pretrain.plumbing.standard_streams import (
    prepare_streams,
    take_output_failure,
    write_error,
    write_output,
)
from rsa_pretrain.plumbing.stop_signal import Stopped, exit_code
from rsa_pretrain.plumbing.user_paths import is_address, user_path
from rsa_pretrain.plumbing.versions import VERSION

if TYPE_CHECKING:
    from pydantic import BaseModel

USER_ERROR_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


@dataclass(frozen=True)
class Command:
    """A command of a program; its module is imported only when the command is chosen."""

    name: str
    summary: str
    """One line for the program's ``--help``."""
    source: str | Callable[[Commands], None] = ""
    """Module of the program's package whose ``add`` adds the parser (default: the
    command's name), or a function that adds it."""


@dataclass(frozen=True)
class Program:
    """A command line whose first argument names a command."""

    name: str
    description: str
    """Summary of the program, for ``--help``."""
    package: str
    """Package of the commands' modules."""
    commands: Sequence[Command]
    moved: Mapping[str, str] = field(default_factory=dict)
    """Replacement for each former command."""

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Run the command named in ``argv`` (default: the process's) with ``run_command``."""
        words = sys.argv[1:] if argv is None else argv
        return run_command(lambda: self.dispatch(words))

    def parser(self, name: str) -> "Parser":
        """Return the parser of one command.

        Raises:
            UserError: If there is no such command; the nearest is named.
        """
        parsers = Parser(prog=self.name).add_subparsers()
        self._add_parser(name, parsers)
        return parsers.choices[name]

    def dispatch(self, words: Sequence[str]) -> int:
        """Run the command named in ``words``, without ``run_command``.

        Raises:
            UserError: If there is no such command, or another package has the toolkit's name.
        """
        check_import_names()
        if words[:1] == ["--version"]:
            say(f"{self.name} {VERSION}")
            return 0
        parser = Parser(prog=self.name, description=self.description)
        parsers = parser.add_subparsers(title="commands", metavar="COMMAND")
        if words[:1] in (["-h"], ["--help"]):
            for command in self.commands:
                parsers.add_parser(command.name, help=command.summary)
        else:
            self._add_parser(words[0] if words else "", parsers)
            parser.prog = f"{self.name} {words[0]}"  # whose --help an error names
        arguments = parser.parse_args(words)
        return int(arguments.command(arguments))

    def _add_parser(self, name: str, parsers: Commands) -> None:
        sources = {command.name: command.source or command.name for command in self.commands}
        if name not in sources:
            raise UserError(self._what_to_type(name, list(sources)))
        source = sources[name]
        if isinstance(source, str):
            source = import_module(f"{self.package}.{source.replace('-', '_')}").add
        source(parsers)

    def _what_to_type(self, name: str, known: Sequence[str]) -> str:
        if name in self.moved:
            return f"'{name}' is now '{self.moved[name]}'"
        found = f"unknown command '{name}'" if name else "no command given"
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; the nearest is '{nearest[0]}'" if nearest else ""
        return f"{found}{hint}; expected one of {', '.join(known)}"


def run_command(command: Callable[[], int]) -> int:
    """Run a command; turn a user's mistake into one ``error:`` line and exit code 2.

    Messages go to standard error through ``logging``, results to standard output. Where either
    cannot be written to, the command completes its work all the same.

    Args:
        command: Does the work and returns the exit code.

    Returns:
        The process's exit code; 128 + its number after a signal.
    """
    prepare_streams()
    threading.excepthook = print_unless_raised
    stop_with_launcher()
    # In distributed training only rank 0 logs progress; any process may report an error.
    level = logging.INFO if _rank() == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    code, message = USER_ERROR_EXIT_CODE, None
    try:
        code = command()
    except (UserError, OSError) as error:
        message = describe_error(error)
    except Stopped as stopped:
        logging.warning("%s", stopped)
        return exit_code(stopped.received)
    except ModuleNotFoundError as error:
        message = missing_extra(error)
        if message is None:
            raise
    except (RuntimeError, MemoryError) as error:
        message = why_failed(error)
        if message is None:
            raise
    except KeyboardInterrupt:
        write_error("error: interrupted; no file is left half-written\n")
        return INTERRUPTED_EXIT_CODE
    finally:
        end_loader_processes()
        output_failure = take_output_failure()
    message = message or output_failure
    if message is None:
        return code
    write_error(f"error: {message}{_which_process()}\n")
    return USER_ERROR_EXIT_CODE


def _which_process() -> str:
    # torchrun ends all processes when any one fails, so each must report its own error.
    count = os.environ.get("WORLD_SIZE", "1")
    return "" if count == "1" else f" (process {_rank()} of {count})"


def _rank() -> str:
    return os.environ.get("RANK", "0")


def say(text: str) -> None:
    """Write one line of a command's result to standard output, from the main process only."""
    if _rank() == "0":
        write_output(f"{text}\n")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises user errors and keeps the line breaks of its help.

    In arguments of ``type=Path`` a leading ``~`` expands to the home folder.

    A command given to ``add_overrides`` takes ``section.key=value`` words anywhere after its own
    arguments, also between options.
    """

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)
        self.register("type", Path, _path)

    settings: "type[BaseModel] | None" = None
    """Settings that the overrides change."""

    def format_help(self) -> str:
        """Return the help, with the config keys of the settings at its end."""
        text = super().format_help()
        if self.settings is None:
            return text
        from rsa_pretrain.plumbing.config.files import (
            describe_keys,  # pydantic: slow, needed only here
        )

        return f"{text}\nconfig keys, as section.key=value:\n{describe_keys(self.settings)}\n"

    def print_help(self, file: Any = None) -> None:
        """Print the help to standard output, or to a file."""
        if file is None:
            write_output(self.format_help())
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Raise ``UserError`` instead of printing the usage and exiting."""
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the arguments; words that no argument takes become ``overrides``."""
        arguments, words = self.parse_known_args(args, namespace)
        takes_overrides = getattr(arguments, "takes_overrides", False)
        unknown = [word for word in words if word.startswith("-") or not takes_overrides]
        if unknown:
            self.error(f"unrecognised argument: {' '.join(unknown)}")
        arguments.overrides = words
        return arguments


def _path(text: str) -> Path:
    try:
        return user_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def checkpoint_place(text: str) -> str | Path:
    """Parse a CHECKPOINT, a path or an address of a published one; an argparse ``type``."""
    return text if is_address(text) else _path(text)


def positive(text: str) -> int:
    """Parse a whole number above 0; an argparse ``type``."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found '{text}'")
    return int(text)


def whole_number(text: str) -> int:
    """Parse a whole number of 0 or more; an argparse ``type``."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, found '{text}'")
    return int(text)


def whole_numbers(text: str) -> list[int]:
    """Parse comma-separated whole numbers; an argparse ``type``."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected whole numbers like 0,1,2, found '{text}'")
    return [int(part) for part in parts]


def add_download_place(parser: Parser) -> None:
    """Add where a data set is downloaded to, and where from."""
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        type=Path,
        default=Path("data"),
        help="folder to download into (default: %(default)s)",
    )
    parser.add_argument(
        "--url",
        help="mirror of the archive or, where several files are published, of their folder, ending "
        "in /; the MD5s must match the published ones",
    )


def add_overrides(parser: Parser, model: "type[BaseModel]") -> None:
    """Let a command take ``section.key=value`` words, and list the keys in its help.

    Call it after adding the command's own arguments.
    """
    parser.set_defaults(takes_overrides=True)
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    parser.usage = f"{usage} [section.key=value ...]".replace("%", "%%")
    parser.settings = model
