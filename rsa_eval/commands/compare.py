"""``rsa-eval compare``: decide between two models."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_eval.commands.outputs import check_apart_from_records, check_output
from rsa_pretrain.plumbing.command_line import Commands, say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_json
from rsa_pretrain.plumbing.user_paths import user_path

if TYPE_CHECKING:
    from rsa_eval.verdicts.compare import Comparison

_DESCRIPTION = """\
Decide whether model A is better than model B in the evaluations that both have.

A and B are run folders, record files, or folders of either. To compare several seeds of both, give
those of A, then --against and those of B. Evaluations are paired by evaluator, protocol and data
set, detectors by their recipe; test images must be the same, or the command refuses and says in
what they differ.

A single network of each is compared image by image: paired bootstrap for the interval, McNemar's
exact test for top-1 and top-5; so are several with one, by their mean answers. Several seeds of
both are compared by Welch's t test and by a bootstrap over seeds and images; the interval spans
both and the p-value is the larger. Over several evaluations p-values are adjusted by Holm's method.
A difference is "shown" if the adjusted p-value is at most 0.05 and the 95 % interval excludes 0;
"detectable" is the difference that a single evaluation of this design shows with a power of 80 %.
With --margin, models are "equivalent" if two one-sided tests show the difference to be smaller.
Records of older versions keep no answers by image: they need several seeds of both models."""

_EXAMPLES = """\
examples:
  rsa-eval compare runs/rsa runs/byol
  rsa-eval compare runs/rsa/records/knn.json runs/byol/records/knn.json --metric mean_per_class
  rsa-eval compare runs/rsa/seed-* --against runs/byol/seed-* --margin 0.5 --figure rsa-byol.png"""

_NUMBERS = ("first", "second", "margin", "verdicts", "left_out", "sentences")
_SUFFIXES = {"markdown": ".md", "json": ".json", "figure": ".png"}


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("compare", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument(
        "models", metavar="A B", nargs="+", type=user_path, help="records of A and of B"
    )
    parser.add_argument(
        "--against",
        metavar="B",
        nargs="+",
        type=user_path,
        help="records of B; all others are of A",
    )
    parser.add_argument(
        "--metric", help="metric to compare, such as top5 or mean_per_class (default: the headline)"
    )
    parser.add_argument(
        "--margin", metavar="POINTS", type=_points, help="difference that does not matter"
    )
    parser.add_argument(
        "--paired", action="store_true", help="compare seed by seed: a paired t test, for Welch's"
    )
    parser.add_argument("--markdown", metavar="FILE.md", type=Path, help="write the result there")
    parser.add_argument("--json", metavar="FILE.json", type=Path, help="write every number there")
    parser.add_argument("--figure", metavar="FILE.png", type=Path, help="plot the differences")
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    for name, suffix in _SUFFIXES.items():
        path = getattr(arguments, name)
        if path is not None:
            check_output(path, suffix, f"--{name}")
            inputs = (*arguments.models, *(arguments.against or ()))
            check_apart_from_records(path, f"--{name}", inputs)
    if arguments.json is not None:
        check_json(arguments.json, _NUMBERS)
    models, against = arguments.models, arguments.against
    if against is None:
        if len(models) != 2:
            raise UserError(
                f"expected two models, found {len(models)}; to compare several seeds, give A… "
                "--against B…"
            )
        models, against = models[:1], models[1:]
    from rsa_eval.verdicts.compare import compare_sides
    from rsa_eval.verdicts.sides import read_side

    comparison = compare_sides(
        read_side(models),
        read_side(against),
        metric=arguments.metric,
        margin=arguments.margin,
        is_paired=arguments.paired,
    )
    _say(comparison)
    _write(comparison, arguments)
    return 0


def _say(comparison: "Comparison") -> None:
    from rsa_eval.verdicts.words import caveats, sentences, verdict_table

    say(f"A  {comparison.first}\nB  {comparison.second}\n")
    say(verdict_table(comparison) + "\n")
    for line in (*caveats(comparison), *sentences(comparison)):
        say(line)


def _write(comparison: "Comparison", arguments: argparse.Namespace) -> None:
    from rsa_eval.verdicts.words import caveats, sentences, verdict_table
    from rsa_pretrain.plumbing.atomic_files import atomic_file, write_text
    from rsa_pretrain.plumbing.text_table import escape_markdown

    found = sentences(comparison)
    if arguments.markdown is not None:
        names = (f"- {side}: {escape_markdown(name)}" for side, name in _sides(comparison))
        table = verdict_table(comparison, "markdown")
        text = map(escape_markdown, (*caveats(comparison), *found))
        lines = ["\n".join(names), table, *text]
        write_text(arguments.markdown, "\n\n".join(lines) + "\n")
        say(f"table: {arguments.markdown}")
    if arguments.json is not None:
        tree = asdict(comparison) | {"sentences": found}
        write_text(arguments.json, json.dumps(tree, indent=2, allow_nan=False) + "\n")
        say(f"numbers: {arguments.json}")
    if arguments.figure is not None:
        from rsa_eval.verdicts.figure import draw_differences

        with atomic_file(arguments.figure) as temporary:
            draw_differences(comparison, temporary)
        say(f"figure: {arguments.figure}")


def _sides(comparison: "Comparison") -> list[tuple[str, str]]:
    return [("A", comparison.first), ("B", comparison.second)]


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = 0.0
    if not 0 < points <= 100:
        raise argparse.ArgumentTypeError(f"expected points above 0 and up to 100, found '{text}'")
    return points
