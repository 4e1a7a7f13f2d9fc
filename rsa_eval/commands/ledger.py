"""``rsa-eval ledger``: the page of all rows, published and measured."""

import argparse
from pathlib import Path

from rsa_eval.commands.outputs import check_output
from rsa_eval.ledger.page import write_ledger
from rsa_pretrain.command_line import Commands, say
from rsa_pretrain.errors import UserError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "ledger",
        help="draw up every row of the paper, published and measured",
        description=(
            "Write a Markdown page with every row of the paper's tables and of the study: the\n"
            "published number, ours with its seeds, what it took, and the command that makes it,\n"
            'or "not yet measured". All of it comes from the records and logs below RESULTS.\n\n'
            "NOTES.md is the page's prose; its lines '<!-- study -->' and '<!-- paper -->' give\n"
            "way to the tables. The same records make the same page, byte by byte.\n\n"
            "A damaged record is named on the page and in the error; the page is written\n"
            "without it, and the exit code is 2."
        ),
        epilog="example:\n  rsa-eval ledger results --notes results/notes.md --out RESULTS.md",
    )
    parser.add_argument(
        "results", metavar="RESULTS", type=Path, help="folder with the trials of rows, ROW/seed-S"
    )
    parser.add_argument("--notes", metavar="NOTES.md", type=Path, required=True, help="its prose")
    parser.add_argument(
        "--configs",
        metavar="DIR",
        type=Path,
        default=Path("configs"),
        help="folder of the rows' configs (default: %(default)s)",
    )
    parser.add_argument(
        "--out", metavar="FILE.md", type=Path, required=True, help="the page to write"
    )
    parser.set_defaults(command=_ledger)


def _ledger(arguments: argparse.Namespace) -> int:
    check_output(arguments.out, ".md")
    if arguments.out.resolve() == arguments.notes.resolve():
        raise UserError(f"--out '{arguments.out}' would replace --notes; name another file")
    unreadable = write_ledger(arguments.results, arguments.notes, arguments.configs, arguments.out)
    say(f"ledger: {arguments.out}")
    if unreadable:
        raise UserError(
            f"the ledger leaves out {len(unreadable)} unreadable files: " + "; ".join(unreadable)
        )
    return 0
