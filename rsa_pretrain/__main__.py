"""The command ``rsa-pretrain``."""

import sys
from functools import partial

from detection.convert import convert
from detection.run import run_from_backbone
from rsa_eval.commands import reproduce
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.online_knn import make_online_knn
from rsa_eval.reproduction.runner import Makers
from rsa_eval.run_records import metrics_of_run
from rsa_pretrain.command_line import Parser, run_command
from rsa_pretrain.commands import (
    config,
    configs,
    data_check,
    download,
    export,
    import_checkpoint,
    inspect_file,
    preview,
    run,
    sweep,
)
from rsa_pretrain.step_cost import measure_step


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-pretrain`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-pretrain", description="Self-supervised pretraining of ResNets.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run.add(commands, make_online_knn)
    train = partial(run.pretrain, make_evaluate=make_online_knn)
    sweep.add(commands, train, metrics_of_run, tuple(EVALUATORS))
    reproduce.add(commands, Makers(train, run_from_backbone), measure_step)
    config.add(commands)
    configs.add(commands)
    preview.add(commands)
    download.add(commands)
    data_check.add(commands)
    import_checkpoint.add(commands)
    export.add(commands, convert)
    inspect_file.add(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


if __name__ == "__main__":
    sys.exit(main())
