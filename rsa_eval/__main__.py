"""The command ``rsa-eval``."""

import sys

from rsa_pretrain.command_line import Command, run_program

_EVALUATE = "rsa_eval.commands.evaluate"

DESCRIPTION = "What frozen features are worth."
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
