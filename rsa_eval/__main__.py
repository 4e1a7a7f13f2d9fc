"""The command ``rsa-eval``."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsa_eval.config import EvaluationConfig, KNNConfig, LinearConfig
from rsa_eval.evaluations import evaluate_knn, evaluate_linear
from rsa_eval.record import Record, write_record
from rsa_eval.report import write_report
from rsa_eval.subject import load_subject
from rsa_pretrain.command_line import Parser, add_overrides, run_command, say
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import load_config, to_tree
from rsa_pretrain.errors import UserError

# A word of this form is a setting, any other the checkpoint; a path that looks like a setting
# can be written with a leading `./`.
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
_RUN_CONFIG = "config.yaml"

_EVALUATE = """\
{what}

CHECKPOINT is a run folder, a checkpoint folder, a safetensors file, or a file of another
project (rsa-pretrain inspect tells what it holds). The result is one JSON record, by default
in the run folder: records/{kind}-DATASET.json. Without --config the images are those of the
run that made the checkpoint."""

_EXAMPLES = """\
examples:
  rsa-eval {kind} runs/digits
  rsa-eval {kind} runs/cifar10 --config configs/{config} data.root=data/cifar10
  rsa-eval {kind} --random-init --config configs/{config} \\
      backbone.arch=resnet18 backbone.stem=cifar --out runs/random/records/{kind}-cifar10.json"""


def main(argv: list[str] | None = None) -> int:
    """Run ``rsa-eval`` and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    parser = Parser(prog="rsa-eval", description="What frozen features are worth.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_evaluator(
        commands, "knn", KNNConfig, evaluate_knn, "cifar10", "classify by nearest neighbours"
    )
    _add_evaluator(
        commands, "linear", LinearConfig, evaluate_linear, "moco_v2_cifar10", "train a linear probe"
    )
    _add_report(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.command(arguments))


def _add_evaluator(
    commands: "argparse._SubParsersAction[Parser]",
    kind: str,
    model: type[EvaluationConfig],
    evaluate: Callable[..., Record],
    example: str,
    what: str,
) -> None:
    sentence = f"{what.capitalize()}: top-1 and top-5 accuracy of a frozen backbone's features."
    parser = commands.add_parser(
        kind,
        help=what,
        description=_EVALUATE.format(what=sentence, kind=kind),
        epilog=_EXAMPLES.format(kind=kind, config=f"{kind}/{example}.yaml"),
    )
    parser.add_argument(
        "--random-init",
        action="store_true",
        help="evaluate random weights of backbone.arch and backbone.stem in place of a checkpoint",
    )
    parser.add_argument("--config", metavar="YAML", type=Path, help="settings of the evaluation")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="where to write the record")
    parser.usage = f"rsa-eval {kind} [--config YAML] [--out FILE.json] CHECKPOINT | --random-init"
    add_overrides(parser, model)
    parser.set_defaults(command=lambda arguments: _evaluate(arguments, model, evaluate, kind))


def _add_report(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "report",
        help="draw up one page from records and runs",
        description=(
            "Write a self-contained HTML page, and beside it the same tables as Markdown.\n\n"
            "RUNS are run folders (of pretraining or detection), record files, or folders of\n"
            "either. A damaged record is named on the page and in the error; the page is written\n"
            "without it, and the exit code is 2."
        ),
        epilog="example:\n  rsa-eval report runs --out report.html",
    )
    parser.add_argument("runs", metavar="RUNS", nargs="+", type=Path, help="what to report on")
    parser.add_argument(
        "--out", metavar="FILE.html", type=Path, required=True, help="the page to write"
    )
    parser.set_defaults(command=_report)


def _evaluate(
    arguments: argparse.Namespace,
    model: type[EvaluationConfig],
    evaluate: Callable[..., Record],
    kind: str,
) -> int:
    overrides = [word for word in arguments.overrides if _OVERRIDE.match(word)]
    paths = [Path(word) for word in arguments.overrides if not _OVERRIDE.match(word)]
    checkpoint = _the_checkpoint(paths, arguments.random_init)
    run_dir = None if checkpoint is None else _run_folder(checkpoint)
    start = None if arguments.config else _images_of_run(run_dir, checkpoint, overrides)
    config = load_config(model, arguments.config, overrides, start)
    out = _record_path(arguments.out, run_dir, f"{kind}-{config.data.name}.json")
    record = evaluate(load_subject(checkpoint, config), config)
    write_record(record, out)
    for line in _result_lines(record):
        say(line)
    say(f"record: {out}")
    return 0


def _the_checkpoint(paths: list[Path], random_init: bool) -> Path | None:
    if random_init:
        if paths:
            raise UserError(
                f"--random-init stands in place of a checkpoint, but '{paths[0]}' was given too"
            )
        return None
    if len(paths) != 1:
        found = ", ".join(f"'{path}'" for path in paths) or "none"
        raise UserError(f"expected one CHECKPOINT, or --random-init; found {found}")
    if not paths[0].exists():
        raise UserError(f"checkpoint '{paths[0]}' does not exist")
    return paths[0]


def _run_folder(checkpoint: Path) -> Path | None:
    """Return the run folder a checkpoint lies in: runs/x of runs/x/checkpoints/last/file."""
    folders = [checkpoint, *checkpoint.absolute().parents[:3]]
    return next((folder for folder in folders if (folder / _RUN_CONFIG).is_file()), None)


def _images_of_run(
    run_dir: Path | None, checkpoint: Path | None, overrides: list[str]
) -> dict[str, Any] | None:
    if run_dir is not None:
        config = load_config(PretrainConfig, run_dir / _RUN_CONFIG)
        return {"data": to_tree(config.data)}
    if not any(override.startswith("data.") for override in overrides):
        what = "--random-init" if checkpoint is None else f"'{checkpoint}', in no run folder,"
        raise UserError(
            f"{what} does not say which images to use; give --config, or data.name and "
            "data.image_size (and data.root) as overrides"
        )
    return None


def _record_path(out: Path | None, run_dir: Path | None, default_name: str) -> Path:
    if out is None:
        if run_dir is None:
            raise UserError("there is no run folder to keep the record in; give --out FILE.json")
        out = run_dir / "records" / default_name
    check_output(out, ".json")
    return out


def check_output(path: Path, suffix: str) -> None:
    """Refuse, before any work is done, a path that cannot be written.

    Raises:
        UserError: If it has another suffix, or is a folder, or lies where nothing can be made.
    """
    if path.suffix != suffix:
        raise UserError(f"--out '{path}' should end in {suffix}")
    if path.is_dir():
        raise UserError(f"--out '{path}' is a folder; name a file in it")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"--out '{path}' cannot be written: '{nearest}' is no writable folder")


def _result_lines(record: Record) -> list[str]:
    """Return the result as an aligned table."""
    backbone = record.model.backbone
    name = record.model.checkpoint or f"random weights, seed {record.seeds[0]}"
    lines = [
        f"{record.kind} on {record.data_set} ({record.num_samples} test images): "
        f"{backbone.arch}, {backbone.stem} stem, {name}"
    ]
    if record.kind == "knn":
        lines.append(f"{'k':>6} {'T':>6} {'top1 %':>8} {'top5 %':>8}")
        for vote in record.details["votes"]:
            weight = "–" if vote["temperature"] is None else f"{vote['temperature']:g}"
            lines.append(f"{vote['k']:>6} {weight:>6} {vote['top1']:>8.2f} {vote['top5']:>8.2f}")
    else:
        lines += [f"{key:>6} {metric.value:>8.2f} %" for key, metric in record.metrics.items()]
    lines += [f"deviates: {deviation}" for deviation in record.deviations]
    return lines


def _report(arguments: argparse.Namespace) -> int:
    check_output(arguments.out, ".html")
    unreadable = write_report(arguments.runs, arguments.out)
    say(f"report: {arguments.out}")
    say(f"tables: {arguments.out.with_suffix('.md')}")
    if unreadable:
        raise UserError(
            f"the report leaves out {len(unreadable)} unreadable files: " + "; ".join(unreadable)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
