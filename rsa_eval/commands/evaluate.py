"""``rsa-eval knn``, ``rsa-eval linear`` and the other evaluators: make one record."""

import argparse
from functools import partial
from pathlib import Path

from rsa_eval.campaigns.run_records import check_replaceable, make_record_of
from rsa_eval.commands.given_features import add_features_option, evaluate_features
from rsa_eval.commands.outputs import check_output, check_record_output
from rsa_eval.commands.subjects import (
    CHECKPOINTS,
    add_config_option,
    images_of_run,
    run_of,
    split_checkpoints,
    the_checkpoint,
)
from rsa_eval.evaluators import EVALUATORS, Evaluator, record_name
from rsa_eval.evaluators.given import GIVEN_EVALUATORS
from rsa_eval.records.record import Metric, Record
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError

_EVALUATE = """\
Measure {measures}.

{checkpoint}

The result is one JSON record, by default records/{kind}-PROTOCOL-DATASET.json in the run folder,
where a record made with other settings is never overwritten. The images are those of the
checkpoint's run unless a config names others."""

_FEATURES = """

With --features there is no checkpoint: TRAIN and TEST hold features made by anything, with their
labels. A .npz or .safetensors file has arrays features (N, D) and labels (N), or X and y; the
labels of NAME.npy, as of NAME_features.npy, are in NAME_labels.npy."""

_EXAMPLES = """\
examples:
  rsa-eval {kind} runs/digits-rsa-3ep{own}{needs}
  rsa-eval {kind} weights.safetensors --config {images}{needs} \\
      --out runs/weights/records/{kind}.json
  rsa-eval {kind} timm:vit_small_patch16_224@vit.safetensors --config {images} \\
      data.image_size=224 --out runs/vit/records/{kind}.json{needs}
  rsa-eval {kind} --random-init --config {images} backbone.arch=resnet18 backbone.stem={stem} \\
      --out runs/random/records/{kind}-{name}.json{needs}"""

_FEATURES_EXAMPLE = """
  rsa-eval {kind} --features train.npz test.npz data_set=cifar10 --out vit/records/{kind}.json"""


def add(commands: Commands) -> None:
    """Add a command per evaluator to the parser."""
    for kind, evaluator in EVALUATORS.items():
        description, examples, subjects = _EVALUATE, _EXAMPLES, "CHECKPOINT | --random-init"
        if kind in GIVEN_EVALUATORS:
            description, examples = description + _FEATURES, examples + _FEATURES_EXAMPLE
            subjects += " | --features TRAIN TEST"
        parser = commands.add_parser(
            kind,
            description=description.format(
                measures=evaluator.measures, kind=kind, checkpoint=CHECKPOINTS
            ),
            epilog=examples.format(kind=kind, **_of_examples(evaluator)),
        )
        parser.add_argument(
            "--random-init",
            action="store_true",
            help="evaluate random weights of backbone.arch and backbone.stem, or of timm:NAME or "
            "torchvision:NAME",
        )
        add_features_option(parser, kind)
        add_config_option(parser)
        parser.add_argument(
            "--out", metavar="FILE.json", type=Path, help="file of the record to write"
        )
        parser.usage = f"rsa-eval {kind} [--config CONFIG] [--out FILE.json] {subjects}"
        add_overrides(parser, evaluator.config)
        parser.set_defaults(command=partial(_evaluate, kind=kind, evaluator=evaluator))


def _of_examples(evaluator: Evaluator) -> dict[str, str]:
    """Return what the examples of an evaluator's help name."""
    images = evaluator.example_images
    name, is_usual = images.rpartition("/")[2], images.startswith("data/")
    return {
        "images": images,
        "name": name,
        "own": "" if is_usual else f" --config {images}",  # else those of the run
        "stem": "cifar" if is_usual else "standard",
        "needs": f" {evaluator.needs}".rstrip(),
    }


def _evaluate(arguments: argparse.Namespace, kind: str, evaluator: Evaluator) -> int:
    given, overrides = split_checkpoints(arguments.overrides)
    if arguments.features is not None:
        _say_result(*evaluate_features(arguments, kind, evaluator.config, given, overrides))
        return 0
    checkpoint = the_checkpoint(given, arguments.random_init)
    run_dir = run_of(checkpoint)
    start = images_of_run(run_dir, checkpoint, arguments.config, overrides)
    config = load_config(evaluator.config, arguments.config, overrides, start)
    out = _record_path(arguments.out, run_dir, record_name(kind, config))
    if arguments.out is None:
        former = check_replaceable(out, config)
    else:
        former = check_record_output(out, kind)
    record = make_record_of(checkpoint, evaluator, config, out)
    _say_result(record, out, former)
    return 0


def _record_path(out: Path | None, run_dir: Path | None, default_name: str) -> Path:
    if out is None:
        if run_dir is None:
            raise UserError("there is no run folder to write the record to; give --out FILE.json")
        out = run_dir / "records" / default_name
    check_output(out, ".json")
    return out


def _say_result(record: Record, out: Path, former: Record | None) -> None:
    for line in _result_lines(record):
        say(line)
    if former is not None and _subject(former) != _subject(record):
        say(f"replaced: the record of {_name(former)} on {former.data_set}, which was there")
    say(f"record: {out}")


def _subject(record: Record) -> tuple[str | None, ...]:
    return record.model.sha256, record.model.network, record.data_set


def _name(record: Record) -> str:
    return record.model.checkpoint or f"random weights, seed {record.seeds[0]}"


def _result_lines(record: Record) -> list[str]:
    """Return the result as an aligned table."""
    lines = [
        f"{record.kind} on {record.data_set} ({record.num_samples} images): "
        f"{record.model.network}, {_name(record)}"
    ]
    if record.kind == "knn":
        from rsa_eval.statistics.intervals import wilson

        lines.append(f"{'k':>6} {'T':>6} {'top1 %':>8} {'95 %':>14} {'top5 %':>8}")
        for vote in record.details["votes"]:
            weight = "–" if vote["temperature"] is None else f"{vote['temperature']:g}"
            top5 = f"{vote['top5']:.2f}" if "top5" in vote else "–"
            found = wilson(round(vote["top1"] * record.num_samples / 100), record.num_samples)
            interval = f"[{found.low:.1f}, {found.high:.1f}]"
            lines.append(
                f"{vote['k']:>6} {weight:>6} {vote['top1']:>8.2f} {interval:>14} {top5:>8}"
            )
    else:
        width = max(map(len, record.metrics))
        lines += [
            f"  {key:<{width}} {metric.value:>9.2f} {metric.unit} {_interval(metric)}".rstrip()
            for key, metric in record.metrics.items()
        ]
    lines += [f"left out: {reason}" for reason in record.details.get("left_out", ())]
    lines += [f"deviates: {deviation}" for deviation in record.deviations]
    lines += [f"warning: {warning}" for warning in record.warnings]
    return lines


def _interval(metric: Metric) -> str:
    return "" if metric.interval is None else metric.interval.text
