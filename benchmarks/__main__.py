"""Measure claims of speed, memory and coverage: ``python -m benchmarks NAME [key=value ...]``.

Without a name the benchmarks are listed.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.catalogue import BENCHMARKS
from benchmarks.gpu import command as gpu
from benchmarks.measure import run_benchmark, write_result
from benchmarks.table import PAGE, draw_page
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Parser, add_overrides, run_command, say
from rsa_pretrain.plumbing.config.files import load_config

_FAILED_EXIT_CODE = 1


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a number misses its bound."""
    return run_command(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


def _dispatch(argv: list[str]) -> int:
    arguments = command_parser().parse_args(argv)
    return int(arguments.command(arguments))


def command_parser() -> Parser:
    """Return the parser of all benchmarks."""
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(title="benchmarks", metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, help=benchmark.summary, description=benchmark.summary)
        command.add_argument(
            "--results",
            metavar="FOLDER",
            type=Path,
            help=f"receives the result instead of benchmarks/results and {PAGE.name}",
        )
        add_overrides(command, benchmark.settings)
        command.set_defaults(command=partial(_run, name=name))
    table = commands.add_parser("table", help=f"regenerate {PAGE.name} from the results")
    table.set_defaults(command=_table)
    gpu.add(commands)
    parser.set_defaults(command=_list)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    width = max(map(len, BENCHMARKS))
    for name, benchmark in BENCHMARKS.items():
        say(f"{name:<{width}}  {benchmark.summary}")
    return 0


def _run(arguments: argparse.Namespace, name: str) -> int:
    benchmark = BENCHMARKS[name]
    settings = load_config(benchmark.settings, None, arguments.overrides)
    result = run_benchmark(name, benchmark, settings, arguments.overrides)
    for finding in result.findings:
        verdict = "met" if finding.met else "MISSED"
        required = f"{finding.bound} {finding.limit:g}"
        say(f"{finding.what}: {finding.value:.3g} {finding.unit} ({required}: {verdict})")
    for figure in result.figures:
        say(f"{figure.what}: {figure.value:.4g} {figure.unit}")
    if arguments.results is None:
        say(f"result: {write_result(result)}")
        _table(arguments)
    else:
        say(f"result: {write_result(result, arguments.results)}")
    return 0 if all(finding.met for finding in result.findings) else _FAILED_EXIT_CODE


def _table(arguments: argparse.Namespace) -> int:
    write_text(PAGE, draw_page(BENCHMARKS))
    say(f"table: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
