"""The command ``rsa-eval``."""

import sys

from rsa_eval.commands import config, evaluate, features, report, suite
from rsa_pretrain.command_line import Parser, run_command


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-eval`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-eval", description="What frozen features are worth.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    features.add(commands)
    evaluate.add(commands)
    suite.add(commands)
    config.add(commands)
    report.add(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


if __name__ == "__main__":
    sys.exit(main())
