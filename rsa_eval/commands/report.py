"""``rsa-eval report``: one page from records and runs."""

import argparse
from pathlib import Path

from rsa_eval.commands.outputs import check_output
from rsa_eval.report.write import TABLE_SUFFIXES, write_report
from rsa_pretrain.command_line import Commands, say
from rsa_pretrain.errors import UserError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report",
        help="draw up one page from records and runs",
        description=(
            "Write a self-contained HTML page. Beside it, under the same name, stand its tables\n"
            "as Markdown (.md) and LaTeX (.tex), and every number as one line of CSV (.csv).\n\n"
            "RUNS are run folders (of pretraining or detection), record files, or folders of\n"
            "either, such as a sweep. A number stands in a cell of the paper's tables if its\n"
            "record tells that it belongs there; each departure from the paper is a footnote.\n"
            "Records that differ in seeds alone are one row: mean ± sample standard deviation.\n\n"
            "A damaged record is named on the page and in the error; the page is written\n"
            "without it, and the exit code is 2."
        ),
        epilog="example:\n  rsa-eval report runs --out report.html",
    )
    parser.add_argument("runs", metavar="RUNS", nargs="+", type=Path, help="what to report on")
    parser.add_argument(
        "--out", metavar="FILE.html", type=Path, required=True, help="the page to write"
    )
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    check_output(arguments.out, ".html")
    unreadable = write_report(arguments.runs, arguments.out)
    say(f"report: {arguments.out}")
    for suffix in TABLE_SUFFIXES:
        say(f"tables: {arguments.out.with_suffix(suffix)}")
    if unreadable:
        raise UserError(
            f"the report leaves out {len(unreadable)} unreadable files: " + "; ".join(unreadable)
        )
    return 0
