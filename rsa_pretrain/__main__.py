"""The ``rsa-pretrain`` command line, and the calls it makes into the other packages."""

import sys
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.command_line import Command, Commands, Program


def _add_run(commands: Commands) -> None:
    from rsa_pretrain.commands import run

    run.add(commands, _train)


def _add_sweep(commands: Commands) -> None:
    from rsa_eval.commands import sweep

    sweep.add(commands, _train)


def _add_config(commands: Commands) -> None:
    from rsa_pretrain.config import PretrainConfig
    from rsa_pretrain.plumbing.config.command import add_config_command

    add_config_command(
        commands, PretrainConfig, "rsa-pretrain config cifar10/rsa training.epochs=800"
    )


def _add_export(commands: Commands) -> None:
    from rsa_pretrain.commands import export

    export.add(commands, _to_detectron2, _read_records)


def _train(config: Any, **options: Any) -> int:
    from rsa_eval.evaluators.knn.online import make_online_knn
    from rsa_pretrain.training.pretraining import pretrain

    return pretrain(config, make_evaluate=make_online_knn, **options)


def _read_records(folder: Path, loaded: Any) -> Any:
    from rsa_eval.records.of_weights import read_records

    return read_records(folder, loaded)


def _to_detectron2(checkpoint: str | Path, out: Path) -> object:
    from detection.exchange.convert import convert

    return convert(checkpoint, out)


PROGRAM = Program(
    "rsa-pretrain",
    "Self-supervised pretraining of ResNets.",
    "rsa_pretrain.commands",
    (
        Command("run", "pretrain a backbone", _add_run),
        Command("sweep", "run a config over several values and seeds", _add_sweep),
        Command("config", "print a config's settings, each with its source", _add_config),
        Command("configs", "list the shipped configs"),
        Command("download", "download a data set"),
        Command("preview", "draw the views of some training images"),
        Command("data-check", "count and decode every image of a data set"),
        Command("zoo", "list published checkpoints, or download one"),
        Command("import", "import another project's backbone", "import_checkpoint"),
        Command("export", "export a backbone to another tool", _add_export),
        Command("inspect", "show the contents of a checkpoint file", "inspect_file"),
    ),
    moved={"reproduce": "rsa-eval reproduce", "recipes": "rsa-eval reproduce --list"},
)
main = PROGRAM.run


if __name__ == "__main__":
    sys.exit(main())
