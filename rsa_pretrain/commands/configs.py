"""``rsa-pretrain configs``: the shipped configs, one line each."""

import argparse
import difflib
from fnmatch import fnmatch
from pathlib import Path

from rsa_pretrain.plumbing.command_line import Commands, say
from rsa_pretrain.plumbing.config.shipped import FOLDER, shipped_configs
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_table import render_table


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "configs",
        description="List the shipped configs, one line each. A name stands for its file\n"
        f"wherever a command takes CONFIG, and in base:. The files are in {FOLDER}.",
        epilog="examples:\n  rsa-pretrain configs\n  rsa-pretrain configs rsa\n"
        "  rsa-pretrain configs 'cifar10/*'",
    )
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="", help="part of a name, or a glob"
    )
    parser.set_defaults(command=_configs)


def _configs(arguments: argparse.Namespace) -> int:
    shipped = shipped_configs()
    pattern = arguments.pattern
    names = [name for name in shipped if pattern in name or fnmatch(name, pattern)]
    if not names:
        nearest = ", ".join(difflib.get_close_matches(pattern, shipped, cutoff=0.0))
        raise UserError(f"no shipped config matches '{pattern}'; the nearest are {nearest}")
    say(render_table(("name", "what"), [(name, _summary(shipped[name])) for name in names]))
    return 0


def _summary(path: Path) -> str:
    """Return the first line of a config, which describes it."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
