"""The command ``rsa-pretrain``."""

import sys

from rsa_pretrain.command_line import Parser, run_command
from rsa_pretrain.commands import preview, run


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-pretrain`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-pretrain", description="Self-supervised pretraining of ResNets.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run.add(commands)
    preview.add(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


if __name__ == "__main__":
    sys.exit(main())
