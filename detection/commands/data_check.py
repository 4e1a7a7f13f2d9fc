"""``rsa-detect data-check``: check a COCO-format data set before training on it."""

import argparse
import json
from pathlib import Path

from detection.commands.rules_options import add_rules, chosen_rules
from detection.data_check import check_set, compare_sets, unreadable_set
from detection.limit_checks import limits_of
from detection.picture_page import Page, write_page
from detection.recipe import Recipe
from detection.set_check import Role, SetCheck, count_in_words, in_words
from detection.visualise import annotated_cards
from rsa_pretrain.atomic_files import write_text
from rsa_pretrain.command_line import Commands, add_overrides, positive, say
from rsa_pretrain.config_files import load_config
from rsa_pretrain.errors import UserError
from rsa_pretrain.read_rules import ReadRules
from rsa_pretrain.text_table import render_table

PROBLEMS_EXIT_CODE = 1


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "data-check",
        help="check a COCO-format data set before training on it",
        description="Check every entry of the annotations and decode every image of the training\n"
        "and the test set of CONFIG, or of one annotation file. What would stop training or\n"
        "evaluation, or have it learn or count something wrong, is an error; what is handled, but\n"
        "may not be meant, a note. Exit code 0: all is well; 1: errors were found; 2: it cannot\n"
        "be checked. Without a config, the detector's limits are those of the default recipe.",
        epilog="examples:\n"
        "  rsa-detect data-check toy_shapes --preview shapes.html\n"
        "  rsa-detect data-check instances_train.json --images train/",
    )
    parser.add_argument(
        "source", metavar="CONFIG.yaml|ANNOTATIONS.json", type=Path, help="what to check"
    )
    parser.add_argument(
        "--images", metavar="FOLDER", type=Path, help="of ANNOTATIONS.json; without it: a config"
    )
    parser.add_argument(
        "--role",
        choices=("train", "test"),
        help="check the config's set of that name alone; of ANNOTATIONS.json: what it is for "
        "(default train)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=positive,
        default=5,
        help="entries named per kind; the rest is counted (default 5)",
    )
    parser.add_argument(
        "--preview",
        metavar="PAGE.html",
        type=Path,
        help="write annotated images and the findings, one page per set",
    )
    parser.add_argument(
        "--num-images", metavar="N", type=positive, default=24, help="on a page (default 24)"
    )
    parser.add_argument(
        "--out", metavar="FILE.json", type=Path, help="write everything found, each entry named"
    )
    add_rules(parser)
    add_overrides(parser, Recipe)
    parser.set_defaults(command=_data_check)


def _data_check(arguments: argparse.Namespace) -> int:
    checks = _checks(arguments)
    for check in checks:
        _report(check, arguments.limit)
        if arguments.preview is not None:
            path = arguments.preview
            if len(checks) > 1:
                path = path.with_stem(f"{path.stem}-{check.role}")
            _write_preview(check, path, arguments.num_images, arguments.limit)
    if arguments.out is not None:
        tree = {check.role: check.to_tree() for check in checks}
        write_text(arguments.out, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
        say(f"written: {arguments.out}")
    problems = sum(len(check.errors) for check in checks)
    say("all is well" if problems == 0 else f"problems found: {problems}")
    return PROBLEMS_EXIT_CODE if problems else 0


def _checks(arguments: argparse.Namespace) -> list[SetCheck]:
    if arguments.images is not None:
        if arguments.overrides:
            raise UserError(f"'{arguments.overrides[0]}' needs a config; --images is without one")
        rules = chosen_rules(arguments)
        return [check_set(arguments.source, arguments.images, arguments.role or "train", rules)]
    recipe = load_config(Recipe, arguments.source, arguments.overrides)
    rules = chosen_rules(arguments, recipe.data)
    checks = []
    if arguments.role != "test":
        checks.append(_check_of(recipe, "train", rules))
    if arguments.role != "train":
        checks.append(_check_test_set(recipe, rules, is_alone=not checks))
    if len(checks) == 2 and all(check.category_sizes for check in checks):
        compare_sets(*checks)
    return checks


def _check_of(recipe: Recipe, role: Role, rules: ReadRules) -> SetCheck:
    data = recipe.data
    places = {
        "train": (data.train_annotations, data.train_images),
        "test": (data.test_annotations, data.test_images),
    }
    sizes = recipe.model.anchor_sizes_pixels
    limits = limits_of(role, recipe.input, recipe.sampling, sizes)
    return check_set(*places[role], role, rules, limits, keep_empty=data.keep_empty_images)


def _check_test_set(recipe: Recipe, rules: ReadRules, *, is_alone: bool) -> SetCheck:
    """Check the test set; beside training's, one that cannot be read is a problem of the data."""
    try:
        return _check_of(recipe, "test", rules)
    except UserError as error:
        if is_alone:
            raise
        data = recipe.data
        return unreadable_set(data.test_annotations, data.test_images, "test", error)


def _report(check: SetCheck, limit: int) -> None:
    say(f"{check.role}: {count_in_words(check)}")
    rows = list(check.category_sizes.values())
    if rows:
        table = render_table(("category", "instances", "images"), rows)
        say("\n".join(f"  {line}" for line in table.splitlines()))
    for level, findings in (("error", check.errors), ("note", check.notes)):
        for line in in_words(findings, limit):
            say(f"  {level}: {line}")


def _write_preview(check: SetCheck, path: Path, num_images: int, limit: int) -> None:
    cards = annotated_cards(check.coco, check.usable, num_images)
    page = Page(
        title=check.coco.annotations_path.name,
        subtitle=f"{check.role} set: {count_in_words(check)}; {len(cards)} images shown, "
        "crowds dashed",
        categories=[name for name, _, _ in check.category_sizes.values()],
        errors=in_words(check.errors, limit),
        notes=in_words(check.notes, limit),
        counts=list(check.category_sizes.values()),
    )
    write_page(page, cards, path)
    say(f"preview: {path}")
