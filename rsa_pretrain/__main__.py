"""The command ``rsa-pretrain``."""

import sys
from functools import partial

from detection.convert import convert
from rsa_eval.commands import sweep
from rsa_eval.online_knn import make_online_knn
from rsa_pretrain.command_line import Parser, run_command
from rsa_pretrain.commands import (
    config,
    configs,
    data_check,
    export,
    import_checkpoint,
    inspect_file,
    preview,
    run,
)
from rsa_pretrain.errors import UserError

_MOVED = {"reproduce": "rsa-eval reproduce", "recipes": "rsa-eval reproduce --list"}


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-pretrain`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    if argv and argv[0] in _MOVED:
        raise UserError(f"'{argv[0]}' is now '{_MOVED[argv[0]]}'")
    parser = Parser(prog="rsa-pretrain", description="Self-supervised pretraining of ResNets.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run.add(commands, make_online_knn)
    sweep.add(commands, partial(run.pretrain, make_evaluate=make_online_knn))
    config.add(commands)
    configs.add(commands)
    preview.add(commands)
    data_check.add(commands)
    import_checkpoint.add(commands)
    export.add(commands, convert)
    inspect_file.add(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


if __name__ == "__main__":
    sys.exit(main())
