"""The command ``rsa-eval``."""

import sys
from functools import partial

from detection.run import run_from_backbone
from rsa_eval.commands import config, evaluate, features, ledger, report, reproduce, suite
from rsa_eval.online_knn import make_online_knn
from rsa_pretrain.command_line import Parser, run_command
from rsa_pretrain.commands import run
from rsa_pretrain.step_cost import measure_step


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-eval`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-eval", description="What frozen features are worth.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    features.add(commands)
    evaluate.add(commands)
    suite.add(commands)
    train = partial(run.pretrain, make_evaluate=make_online_knn)
    reproduce.add(commands, train, run_from_backbone, measure_step)
    config.add(commands)
    report.add(commands)
    ledger.add(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


if __name__ == "__main__":
    sys.exit(main())
