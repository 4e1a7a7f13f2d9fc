"""The commands ``rsa-toolkit``, which leads to the three programs, and ``rsa-detect``."""

import sys
from collections.abc import Sequence

from rsa_pretrain.plumbing.command_line import Program, run_command, say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.import_names import check_import_names
from rsa_pretrain.plumbing.versions import VERSION

_HEADER = """\
rsa-toolkit {version}: self-supervised pretraining of ResNets, and what the features are worth

usage: rsa-toolkit PROGRAM COMMAND ..., or PROGRAM COMMAND ...
"""
_FOOTER = """\
rsa-toolkit PROGRAM COMMAND --help describes a command, and `rsa-toolkit eval` is `rsa-eval`."""


def main(argv: Sequence[str] | None = None) -> int:
    """List the programs, or run the one named first in ``argv`` (default: the process's)."""
    words = sys.argv[1:] if argv is None else list(argv)
    return run_command(lambda: _dispatch(words))


def detect() -> int:
    """Run ``rsa-detect``, whose package has a name that another distribution may have taken."""
    return run_command(lambda: _programs()["rsa-detect"].dispatch(sys.argv[1:]))


def _dispatch(words: Sequence[str]) -> int:
    programs = _programs()
    if not words or words[0] in ("-h", "--help"):
        say(_listing(programs))
        return 0
    if words[0] == "--version":
        say(f"rsa-toolkit {VERSION}")
        return 0
    name = words[0] if words[0] in programs else f"rsa-{words[0]}"
    if name not in programs:
        raise UserError(
            f"unknown program '{words[0]}'; expected one of {', '.join(programs)}, then a command"
        )
    return programs[name].dispatch(words[1:])


def _programs() -> dict[str, Program]:
    check_import_names()
    from detection.__main__ import PROGRAM as DETECT
    from rsa_eval.__main__ import PROGRAM as EVALUATE
    from rsa_pretrain.__main__ import PROGRAM as PRETRAIN

    return {program.name: program for program in (PRETRAIN, EVALUATE, DETECT)}


def _listing(programs: dict[str, Program]) -> str:
    width = max(len(command.name) for one in programs.values() for command in one.commands)
    parts = [_HEADER.format(version=VERSION)]
    for program in programs.values():
        parts.append(f"{program.name}  {program.description}")
        parts += [f"  {command.name:<{width}}  {command.summary}" for command in program.commands]
        parts.append("")
    return "\n".join([*parts, _FOOTER])
