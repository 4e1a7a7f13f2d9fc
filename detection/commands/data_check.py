"""``rsa-detect data-check``: check annotated images before training on them."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from detection.commands.data_words import START
from detection.commands.image_options import add_rules, chosen_rules
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.command_line import Commands, add_overrides, positive, say
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_json
from rsa_pretrain.plumbing.text_table import render_table
from rsa_pretrain.plumbing.user_paths import refuse_input

if TYPE_CHECKING:
    from detection.survey.findings import SetFindings

PROBLEMS_EXIT_CODE = 1
_ROLES = ("train", "test")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "data-check",
        description="Check every entry of the annotations and decode every image of the training\n"
        "and the test set of CONFIG, or of one annotation file. Errors would stop training or\n"
        "evaluation, or make it learn or count something wrong; notes are handled, but may be\n"
        "unintended. Exit code 0: no errors; 1: errors were found; 2: the set cannot be\n"
        "checked. Without a config, the detector's limits are those of the default recipe.",
        epilog="examples:\n"
        "  rsa-detect data-check toy_shapes --preview shapes.html\n"
        "  rsa-detect data-check data/voc0712\n"
        "  rsa-detect data-check instances_train.json --images train/",
    )
    parser.add_argument(
        "source", metavar="CONFIG|ANNOTATIONS.json", type=Path, help="config or annotations"
    )
    parser.add_argument(
        "--images", metavar="FOLDER", type=Path, help="images of ANNOTATIONS.json (no config)"
    )
    parser.add_argument(
        "--role",
        choices=_ROLES,
        help="check only this set of the config; for ANNOTATIONS.json, its purpose (default train)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=positive,
        default=5,
        help="entries named per finding; the rest are counted (default 5)",
    )
    parser.add_argument(
        "--preview",
        metavar="PAGE.html",
        type=Path,
        help="write annotated images and the findings, one page per set",
    )
    parser.add_argument(
        "--num-images", metavar="N", type=positive, default=24, help="images on a page (default 24)"
    )
    parser.add_argument(
        "--out", metavar="FILE.json", type=Path, help="write all findings, naming every entry"
    )
    add_rules(parser)
    add_overrides(parser, Recipe)
    parser.set_defaults(command=_data_check)


def _data_check(arguments: argparse.Namespace) -> int:
    if arguments.out is not None:
        refuse_input(arguments.out, Path(arguments.source))
        check_json(arguments.out, _ROLES, inner="errors")
    checks = _checks(arguments)
    for found in checks:
        _report(found, arguments.limit)
        if arguments.preview is not None:
            path = arguments.preview
            if len(checks) > 1:
                path = path.with_stem(f"{path.stem}-{found.role}")
            _write_preview(found, path, arguments.num_images, arguments.limit)
    if arguments.out is not None:
        tree = {found.role: found.to_tree() for found in checks}
        write_text(arguments.out, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
        say(f"written: {arguments.out}")
    problems = sum(len(found.errors) for found in checks)
    say("no problems found" if problems == 0 else f"problems found: {problems}")
    return PROBLEMS_EXIT_CODE if problems else 0


def _checks(arguments: argparse.Namespace) -> "list[SetFindings]":
    source, role = arguments.source, arguments.role
    if arguments.images is None:
        recipe = load_config(Recipe, source, arguments.overrides, START)
        rules = chosen_rules(arguments, recipe.data)
        from detection.survey.data_check import check_recipe

        return check_recipe(recipe, role, rules)
    if arguments.overrides:
        raise UserError(f"'{arguments.overrides[0]}' needs a config; --images checks without one")
    rules = chosen_rules(arguments)
    from detection.survey.data_check import check_set

    return [check_set(source, arguments.images, role or "train", rules)]


def _report(found: "SetFindings", limit: int) -> None:
    from detection.survey.findings import count_in_words, in_words

    say(f"{found.role}: {count_in_words(found)}")
    rows = list(found.category_sizes.values())
    if rows:
        table = render_table(("category", "instances", "images"), rows)
        say("\n".join(f"  {line}" for line in table.splitlines()))
    for level, findings in (("error", found.errors), ("note", found.notes)):
        for line in in_words(findings, limit):
            say(f"  {level}: {line}")


def _write_preview(found: "SetFindings", path: Path, num_images: int, limit: int) -> None:
    from detection.pictures.cards import annotated_cards
    from detection.pictures.page import Page, write_page
    from detection.survey.findings import count_in_words, in_words

    cards = annotated_cards(found.coco, found.usable, num_images)
    page = Page(
        title=found.coco.annotations_path.name,
        subtitle=f"{found.role} set: {count_in_words(found)}; {len(cards)} images shown, "
        "crowds and difficult objects dashed",
        categories=[name for name, _, _ in found.category_sizes.values()],
        errors=in_words(found.errors, limit),
        notes=in_words(found.notes, limit),
        counts=list(found.category_sizes.values()),
    )
    write_page(page, cards, path)
    say(f"preview: {path}")
