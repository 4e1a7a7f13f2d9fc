"""The ``config`` command of each program: print resolved settings, each with its source."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsa_pretrain.plumbing.command_line import Commands, add_overrides, say
from rsa_pretrain.plumbing.config.files import Section, flatten, parse_tree, to_flow_yaml, to_tree
from rsa_pretrain.plumbing.config.layers import Layer, merge_layers, read_layers

DESCRIPTION = """\
Print every setting that CONFIG resolves to, as runnable YAML, each followed by its source: a file,
the command line or the default."""

_DEFAULT = "default"
_WIDEST = 60  # characters up to which sources are aligned in one column


def add_config_command(commands: Commands, model: type[Section], example: str) -> None:
    """Add the command for configs of one kind to a parser."""
    parser = commands.add_parser("config", description=DESCRIPTION, epilog=f"example:\n  {example}")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="file or name of a config")
    add_overrides(parser, model)

    def print_config(arguments: argparse.Namespace) -> int:
        layers = read_layers([arguments.config], arguments.overrides)
        config = parse_tree(model, merge_layers(layers), str(arguments.config))
        say(explain(to_tree(config), layers))
        return 0

    parser.set_defaults(command=print_config)


def explain(tree: Mapping[str, Any], layers: Sequence[Layer]) -> str:
    """Format settings as YAML, with the source of each value as a comment.

    Args:
        tree: The resolved settings, as plain values.
        layers: As returned by ``read_layers``; a value comes from the last that states it.
    """
    sources: dict[str, str] = {}
    for layer in layers:
        sources |= dict.fromkeys(flatten(layer.tree), layer.source)
    lines = list(_lines(tree, sources))
    width = max(len(text) for text, source in lines if source and len(text) <= _WIDEST)
    return "\n".join(f"{text:<{width}}  # {source}" if source else text for text, source in lines)


def _lines(
    tree: Mapping[str, Any], sources: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield each line with its source, which is empty for a section's heading."""
    indent = "  " * prefix.count(".")
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:", ""
            yield from _lines(value, sources, f"{prefix}{key}.")
        else:
            yield f"{indent}{key}: {to_flow_yaml(value)}", sources.get(f"{prefix}{key}", _DEFAULT)
