"""``rsa-eval label-curve``: accuracy against labels per class, and the labels saved."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_eval.campaigns.label_curve.settings import LABELS, LabelCurveConfig
from rsa_eval.commands.campaigns import HOW_IT_RUNS, add_budget, conclude
from rsa_eval.commands.given_features import refuse_features_option
from rsa_eval.commands.outputs import check_output_folder
from rsa_eval.commands.subjects import (
    CHECKPOINTS,
    add_config_option,
    check_checkpoints,
    images_of_run,
    run_of,
    split_checkpoints,
)
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, positive, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from rsa_eval.campaigns.label_curve.results import LabelCurves

_NAME = "label-curve"

_DESCRIPTION = f"""\
Measure top-1 accuracy with 1, 2, 5, … labels per class, and how many labels pretraining saved: the
labels per class with which a baseline is as accurate as the checkpoint.

{CHECKPOINTS}

Its frozen features are classified by `rsa-eval low-shot`, each number of labels drawn --draws
times, the same draws for every model. The images are those of the first checkpoint's run unless a
config names others. Records are FOLDER/NAME/records/{_NAME}*.json; tables, numbers and plot are
FOLDER/{_NAME}.md, .json and .png.

Intervals are 95 %, over test images and draws together. A baseline's curve is made non-decreasing
and interpolated in the logarithm of the labels; a number with > means more than the largest
number measured, one with < fewer than the smallest.

{HOW_IT_RUNS}"""

_EXAMPLES = """\
examples:
  rsa-eval label-curve runs/imagefolder-rsa-100ep --random-init
  rsa-eval label-curve runs/rsa runs/byol --random-init --supervised --config data/cifar10
  rsa-eval label-curve --random-init --labels 1,5,all data.name=digits data.image_size=32 \\
      backbone.arch=resnet18 backbone.stem=cifar"""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(_NAME, description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument(
        "--random-init",
        action="store_true",
        help="add frozen random weights of the same networks, or of backbone.arch and "
        "backbone.stem",
    )
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="add the same networks trained from random weights on the drawn labels alone, one "
        "training per number of labels and draw",
    )
    parser.add_argument(
        "--labels",
        metavar="N,…",
        type=_labels,
        default=LABELS,
        help="labels per class; all takes every label (default: 1,2,5,10,20,50,100,all, as far as "
        "every class has that many)",
    )
    parser.add_argument(
        "--draws",
        metavar="N",
        type=positive,
        default=5,
        help="draws of each number of labels, with seeds from 0 (default: %(default)s)",
    )
    add_config_option(parser)
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        default=Path("runs") / _NAME,
        help="default: %(default)s",
    )
    add_budget(parser)
    refuse_features_option(parser)
    parser.usage = "rsa-eval label-curve [options] [CHECKPOINT ...]"
    add_overrides(parser, LabelCurveConfig)
    parser.set_defaults(command=_label_curve)


def _labels(text: str) -> tuple[int | None, ...]:
    """Parse comma-separated numbers of labels; None stands for all."""
    words = [word.strip() for word in text.split(",")]
    if not all(word == "all" or (word.isdecimal() and int(word) > 0) for word in words):
        raise argparse.ArgumentTypeError(
            f"expected numbers above 0 and all, like 1,5,20,all, found '{text}'"
        )
    numbers = tuple(None if word == "all" else int(word) for word in words)
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"expected different numbers of labels, found '{text}'")
    return numbers


def _label_curve(arguments: argparse.Namespace) -> int:
    checkpoints, overrides = split_checkpoints(arguments.overrides)
    has_baselines = arguments.random_init or arguments.supervised
    check_checkpoints(checkpoints, has_baselines)
    if not (checkpoints or has_baselines):
        raise UserError("expected a CHECKPOINT, --random-init or --supervised; found none")
    first = checkpoints[0] if checkpoints else None
    run_dir = run_of(first)
    start = images_of_run(run_dir, first, arguments.config, overrides)
    config = load_config(LabelCurveConfig, arguments.config, overrides, start)
    check_output_folder(arguments.out)
    from rsa_eval.campaigns.campaign import run_trials
    from rsa_eval.campaigns.label_curve.plan import plan_label_curve
    from rsa_eval.campaigns.label_curve.results import read_curves

    plan = plan_label_curve(
        config,
        checkpoints,
        arguments.out,
        arguments.labels,
        arguments.draws,
        random_init=arguments.random_init,
        supervised=arguments.supervised,
    )
    outcome = run_trials(plan.trials, arguments.budget_minutes)
    if not outcome.stopped:
        curves = read_curves(plan, outcome)
        if curves is not None:
            _report(curves, arguments.out)
    return conclude(outcome)


def _report(curves: "LabelCurves", out: Path) -> None:
    """Print the curves, and write numbers, tables and plot; several processes write the same."""
    from rsa_eval.campaigns.label_curve.plot import draw_curves
    from rsa_eval.campaigns.label_curve.text import as_json, as_markdown, result_lines
    from rsa_pretrain.plumbing.atomic_files import atomic_file

    picture = out / f"{_NAME}.png"
    for line in result_lines(curves):
        say(line)
    with atomic_file(picture) as temporary:
        draw_curves(curves, temporary)
    write_text(out / f"{_NAME}.json", as_json(curves))
    write_text(out / f"{_NAME}.md", as_markdown(curves, picture.name))
    say(f"plot: {picture}")
    say(f"numbers: {out / f'{_NAME}.json'}")
    say(f"tables: {out / f'{_NAME}.md'}")
