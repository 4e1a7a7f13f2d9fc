"""``rsa-eval audit``: list what makes a comparison of records unfair."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rsa_eval.commands.outputs import check_apart_from_records, check_output
from rsa_pretrain.plumbing.command_line import Commands, say
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_json

if TYPE_CHECKING:
    from rsa_eval.audit.entries import NamedRecord
    from rsa_eval.audit.finding import FindingGroup

_UNFAIR_EXIT_CODE = 1
_FINDINGS = "findings"

_DESCRIPTION = """\
List what makes a comparison of records unfair: differing test images, transforms, settings and
training; missing baselines and seeds; test images that are also training images.

RECORD is a record file, a run folder, or a folder of either. Records of one evaluator and data set
are compared with each other. Each finding is unfair (the numbers must not be compared), caution
(they may differ for this reason) or note, and says what to do.

The images are read where they can be found, from the data.root of each record or below
--data-root, and compared by their pixels, by a perceptual hash and by features of one of the
evaluated checkpoints. --out writes a page that shows the duplicates side by side."""

_EXAMPLES = """\
examples:
  rsa-eval audit runs/byol runs/rsa runs/random --no-images
  rsa-eval audit results/study/cifar10 --data-root data --out leaks.html
  rsa-eval audit runs --json audit.json --strict"""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("audit", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("records", metavar="RECORD", nargs="+", type=Path, help="records and runs")
    parser.add_argument(
        "--no-images", action="store_true", help="compare the records alone; read no image"
    )
    parser.add_argument(
        "--no-features", action="store_true", help="find duplicates without any checkpoint"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", type=Path, help="data.root of images that are not at theirs"
    )
    parser.add_argument("--out", metavar="FILE.html", type=Path, help="page of the duplicates")
    parser.add_argument("--markdown", metavar="FILE.md", type=Path, help="findings as Markdown")
    parser.add_argument("--json", metavar="FILE.json", type=Path, help="findings as JSON")
    parser.add_argument(
        "--strict", action="store_true", help="exit with code 1 if a finding is unfair"
    )
    parser.set_defaults(command=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    _check_arguments(arguments)
    from rsa_eval.audit import render
    from rsa_eval.audit.compare import compare_records
    from rsa_eval.audit.entries import name_records
    from rsa_eval.audit.finding import num_findings
    from rsa_eval.records.find import read_records_below
    from rsa_pretrain.plumbing.atomic_files import write_text

    entries = name_records(read_records_below(arguments.records))
    groups = compare_records(entries)
    if not arguments.no_images:
        groups.append(_audit_images(arguments, entries))
    for line in render.text_lines(groups):
        say(line)
    if arguments.markdown is not None:
        write_text(arguments.markdown, render.markdown(groups))
    if arguments.json is not None:
        tree = {_FINDINGS: render.as_tree(groups)}
        write_text(arguments.json, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    for path in (arguments.out, arguments.markdown, arguments.json):
        if path is not None:
            say(f"written: {path}")
    unfair = num_findings(groups, "unfair")
    return _UNFAIR_EXIT_CODE if arguments.strict and unfair else 0


def _audit_images(arguments: argparse.Namespace, entries: "list[NamedRecord]") -> "FindingGroup":
    from rsa_eval.audit.leak_findings import leak_group
    from rsa_eval.audit.leak_page import write_leak_page
    from rsa_eval.audit.leaks import search_leaks

    search = search_leaks(entries, arguments.data_root, with_features=not arguments.no_features)
    group = leak_group(search, entries)
    if arguments.out is not None:
        write_leak_page(search, group, arguments.out)
    return group


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.no_images:
        for option in ("out", "data_root", "no_features"):
            if getattr(arguments, option):
                name = option.replace("_", "-")
                raise UserError(f"--{name} is about images; leave out --no-images or --{name}")
    if arguments.data_root is not None and not arguments.data_root.is_dir():
        raise UserError(f"--data-root '{arguments.data_root}' is not a folder")
    for option, suffix in (("out", ".html"), ("markdown", ".md"), ("json", ".json")):
        path = getattr(arguments, option)
        if path is not None:
            check_output(path, suffix, f"--{option}")
            check_apart_from_records(path, f"--{option}", arguments.records)
    if arguments.json is not None:
        check_json(arguments.json, [_FINDINGS])
