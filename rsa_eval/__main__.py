"""The command ``rsa-eval``; where its commands meet what other packages do for them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsa_pretrain.command_line import Command, Commands, run_program

_EVALUATE = "rsa_eval.commands.evaluate"

DESCRIPTION = "What frozen features are worth."


def _add_reproduce(commands: Commands) -> None:
    from rsa_eval.commands import reproduce

    reproduce.add(commands, _train, _detect, _measure_step)


def _train(config: Any, *, resume: bool) -> int:
    from rsa_eval.online_knn import make_online_knn
    from rsa_pretrain.pretraining import pretrain

    return pretrain(config, resume=resume, make_evaluate=make_online_knn)


def _detect(path: Path, overrides: Sequence[str], start: Path | None) -> int:
    from detection.run import run_from_backbone

    return run_from_backbone(path, overrides, start)


def _measure_step(config: Any) -> Any:
    from rsa_pretrain.step_cost import measure_step

    return measure_step(config)


COMMANDS = (
    Command(
        "features",
        "extract features into a cache that evaluations read",
        "rsa_eval.commands.features",
    ),
    Command("knn", "classify by nearest neighbours", _EVALUATE),
    Command("linear", "train a linear probe", _EVALUATE),
    Command("logistic", "fit a logistic regression", _EVALUATE),
    Command("low-shot", "classify from few labels", _EVALUATE),
    Command("finetune", "fine-tune the whole network", _EVALUATE),
    Command("svm", "train linear SVMs", _EVALUATE),
    Command("diagnostics", "measure and draw what features look like", _EVALUATE),
    Command("suite", "evaluate several checkpoints in several ways", "rsa_eval.commands.suite"),
    Command("reproduce", "make whole rows of the paper's tables", _add_reproduce),
    Command(
        "config",
        "print what a config resolves to, with the file of each value",
        "rsa_eval.commands.config",
    ),
    Command("report", "draw up one page from records and runs", "rsa_eval.commands.report"),
)


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-eval`` and return its exit code."""
    return run_program("rsa-eval", DESCRIPTION, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
