"""``rsa-eval report``: one page from records and runs."""

import argparse
from pathlib import Path

from rsa_eval.commands.outputs import check_output
from rsa_eval.report import write_report
from rsa_pretrain.command_line import Commands, say
from rsa_pretrain.errors import UserError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
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
