"""The command ``rsa-eval``, wired to the training code of the other packages."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.command_line import Command, Commands, Program


def _add_reproduce(commands: Commands) -> None:
    from rsa_eval.commands import reproduce

    reproduce.add(commands, _train, _detect, _measure_step)


def _train(config: Any, *, resume: bool) -> int:
    from rsa_eval.evaluators.knn.online import make_online_knn
    from rsa_pretrain.training.pretraining import pretrain

    return pretrain(config, resume=resume, make_evaluate=make_online_knn)


def _detect(path: Path, overrides: Sequence[str], start: Path | None) -> int:
    from detection.run import run_from_backbone

    return run_from_backbone(path, overrides, start)


def _measure_step(config: Any) -> Any:
    from rsa_pretrain.training.step_cost import measure_step

    return measure_step(config)


PROGRAM = Program(
    "rsa-eval",
    "Evaluate pretrained backbones.",
    "rsa_eval.commands",
    (
        Command("features", "extract features into a cache for the evaluations"),
        Command("knn", "classify by nearest neighbours", "evaluate"),
        Command("linear", "train a linear probe", "evaluate"),
        Command("logistic", "fit a logistic regression", "evaluate"),
        Command("low-shot", "classify from few labels", "evaluate"),
        Command("finetune", "fine-tune the whole network", "evaluate"),
        Command("svm", "train linear SVMs", "evaluate"),
        Command("robustness", "classify corrupted and shifted images", "evaluate"),
        Command("segmentation", "classify pixels by a linear layer", "evaluate"),
        Command("diagnostics", "measure and plot the features' geometry", "evaluate"),
        Command("suite", "run several evaluations of several checkpoints"),
        Command("transfer", "evaluate checkpoints on many data sets"),
        Command("compare", "decide whether one model is better than another"),
        Command("label-curve", "measure accuracy against labels, and the labels saved"),
        Command("reproduce", "reproduce rows of the paper's tables", _add_reproduce),
        Command("config", "print a config's settings, each with its source"),
        Command("report", "write one page of results from records and runs"),
        Command("serve", "show records, and runs while they train, in a browser"),
        Command("audit", "list what makes a comparison of records unfair"),
    ),
    moved={"ledger": "rsa-eval report --markdown"},
)
main = PROGRAM.run


if __name__ == "__main__":
    sys.exit(main())
