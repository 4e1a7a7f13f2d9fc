"""The command ``rsa-pretrain``; where its commands meet what other packages do for them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsa_pretrain.command_line import Command, Commands, run_program

DESCRIPTION = "Self-supervised pretraining of ResNets."


def _add_run(commands: Commands) -> None:
    from rsa_pretrain.commands import run

    run.add(commands, _train)


def _add_sweep(commands: Commands) -> None:
    from rsa_eval.evaluators import EVALUATORS
    from rsa_pretrain.commands import sweep

    sweep.add(commands, _train, _metrics_of_run, tuple(EVALUATORS))


def _add_reproduce(commands: Commands) -> None:
    from rsa_eval.commands import reproduce
    from rsa_eval.reproduction.runner import Makers

    reproduce.add(commands, Makers(_train, _detect), _measure_step)


def _add_export(commands: Commands) -> None:
    from rsa_pretrain.commands import export

    export.add(commands, _to_detectron2)


def _train(config: Any, **options: Any) -> int:
    from rsa_eval.online_knn import make_online_knn
    from rsa_pretrain.pretraining import pretrain

    return pretrain(config, make_evaluate=make_online_knn, **options)


def _metrics_of_run(run_dir: Path, evaluator: str) -> Mapping[str, float]:
    from rsa_eval.run_records import metrics_of_run

    return metrics_of_run(run_dir, evaluator)


def _detect(path: Path, overrides: Sequence[str], start: Path | None) -> int:
    from detection.run import run_from_backbone

    return run_from_backbone(path, overrides, start)


def _measure_step(config: Any) -> Any:
    from rsa_pretrain.step_cost import measure_step

    return measure_step(config)


def _to_detectron2(checkpoint: Path, out: Path) -> object:
    from detection.convert import convert

    return convert(checkpoint, out)


COMMANDS = (
    Command("run", "pretrain a backbone", _add_run),
    Command("sweep", "run a config with several values and seeds", _add_sweep),
    Command("reproduce", "make whole rows of the paper's tables", _add_reproduce),
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


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-pretrain`` and return its exit code."""
    return run_program("rsa-pretrain", DESCRIPTION, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
