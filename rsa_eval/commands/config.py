"""``rsa-eval config``: print the resolved settings of an evaluation or suite, with sources."""

import argparse
from pathlib import Path

from rsa_eval.campaigns.settings import SuiteConfig
from rsa_eval.commands.subjects import split_words
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.features.settings import FeaturesConfig
from rsa_pretrain.plumbing.command_line import Commands, say
from rsa_pretrain.plumbing.config.command import DESCRIPTION, explain
from rsa_pretrain.plumbing.config.files import Section, flatten, parse_tree, to_tree
from rsa_pretrain.plumbing.config.layers import Layer, merge_layers, read_layers
from rsa_pretrain.plumbing.config.shipped import find_config
from rsa_pretrain.plumbing.errors import UserError

_KINDS: dict[str, type[Section]] = {
    **{kind: evaluator.config for kind, evaluator in EVALUATORS.items()},
    "features": FeaturesConfig,
    "suite": SuiteConfig,
}
# Placeholder if no config names images, so that the rest can be checked.
_ANY_IMAGES = {"data": {"name": "digits", "image_size": 32}}
_IMAGES_OF_RUN = "# data: as in the checkpoint's run, or add a config such as data/cifar10"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "config",
        description=DESCRIPTION + "\nLater configs override earlier ones.",
        epilog="examples:\n  rsa-eval config linear/dinov2\n"
        "  rsa-eval config linear/dinov2 data/cifar10 probe.epochs=20\n"
        "  rsa-eval config cifar10_quick",
    )
    parser.add_argument(
        "--evaluator",
        choices=list(_KINDS),
        help="evaluator of the config (default: the config's folder)",
    )
    parser.usage = "rsa-eval config [--evaluator NAME] CONFIG ... [section.key=value ...]"
    parser.set_defaults(takes_overrides=True, command=_config)


def _config(arguments: argparse.Namespace) -> int:
    configs, overrides = split_words(arguments.overrides)
    if not configs:
        raise UserError("expected a CONFIG; rsa-pretrain configs lists the shipped ones")
    layers = read_layers(configs, overrides)
    kind = arguments.evaluator or _kind_of(configs[0], layers)
    names_images = "data.name" in flatten(merge_layers(layers))
    start: dict[str, object] = {} if names_images else dict(_ANY_IMAGES)
    if kind == "features":
        start["cache_dir"] = "features"
    config = parse_tree(_KINDS[kind], merge_layers(layers, start), str(configs[0]))
    resolved = to_tree(config)
    if not names_images:
        stated = {key for layer in layers for key in flatten(layer.tree)}
        data = {k: value for k, value in resolved.pop("data").items() if f"data.{k}" in stated}
        resolved |= {"data": data} if data else {}
        say(_IMAGES_OF_RUN)
    say(explain(resolved, layers))
    return 0


def _kind_of(config: Path, layers: list[Layer]) -> str:
    if any("evaluations" in layer.tree for layer in layers):
        return "suite"
    folder = find_config(config).parent.name.replace("_", "-")
    if folder not in _KINDS:
        raise UserError(
            f"'{config}' is not in an evaluator's folder; give --evaluator, one of "
            f"{', '.join(_KINDS)}"
        )
    return folder
