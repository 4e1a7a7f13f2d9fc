"""The command ``rsa-pretrain``; where its commands meet what other packages do for them."""

import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from rsa_pretrain.command_line import Command, Commands, run_command, run_program
from rsa_pretrain.errors import UserError

DESCRIPTION = "Self-supervised pretraining of ResNets."


def _add_run(commands: Commands) -> None:
    from rsa_pretrain.commands import run

    run.add(commands, _train)


def _add_sweep(commands: Commands) -> None:
    from rsa_eval.commands import sweep

    sweep.add(commands, _train)


def _add_export(commands: Commands) -> None:
    from rsa_pretrain.commands import export

    export.add(commands, _to_detectron2)


def _train(config: Any, **options: Any) -> int:
    from rsa_eval.online_knn import make_online_knn
    from rsa_pretrain.pretraining import pretrain

    return pretrain(config, make_evaluate=make_online_knn, **options)


def _to_detectron2(checkpoint: Path, out: Path) -> object:
    from detection.convert import convert

    return convert(checkpoint, out)


COMMANDS = (
    Command("run", "pretrain a backbone", _add_run),
    Command("sweep", "run a config with several values and seeds", _add_sweep),
    Command(
        "config",
        "print what a config resolves to, with the file of each value",
        "rsa_pretrain.commands.config",
    ),
    Command("configs", "list the shipped configs", "rsa_pretrain.commands.configs"),
    Command("download", "download a data set", "rsa_pretrain.commands.download"),
    Command("preview", "draw the views of some training images", "rsa_pretrain.commands.preview"),
    Command(
        "data-check",
        "count and decode every image of a data set",
        "rsa_pretrain.commands.data_check",
    ),
    Command(
        "import",
        "take over another project's backbone",
        "rsa_pretrain.commands.import_checkpoint",
    ),
    Command("export", "hand a backbone to another tool", _add_export),
    Command("inspect", "show what a checkpoint file holds", "rsa_pretrain.commands.inspect_file"),
)
_MOVED = {"reproduce": "rsa-eval reproduce", "recipes": "rsa-eval reproduce --list"}


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-pretrain`` and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in _MOVED:
        return run_command(partial(_refuse, words[0]))
    return run_program("rsa-pretrain", DESCRIPTION, COMMANDS, words)


def _refuse(name: str) -> NoReturn:
    raise UserError(f"'{name}' is now '{_MOVED[name]}'")


if __name__ == "__main__":
    sys.exit(main())
