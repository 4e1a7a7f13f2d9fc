"""Read settings from files and ``key=value`` words as layers, of which later ones win."""

import copy
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from yaml.scanner import Scanner, ScannerError

from rsa_pretrain.plumbing.config.shipped import find_config, name_of
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.text_files import read_text
from rsa_pretrain.plumbing.user_paths import real_path, user_path

Tree = dict[str, Any]

COMMAND_LINE = "command line"

_QUOTES = ("'", '"', "!")  # "!" begins a type, as in "!!str 5"
# A config is a few kilobytes, a list of a thousand classes or shards a few dozen.
_LARGEST_MIB = 1
# The scanner takes seconds for a thousand open brackets, and aliases of aliases grow without limit.
_MOST_LEVELS = 64
_MOST_VALUES = 1_000_000
# Those between stand for bytes of a file name that are not UTF-8.
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
# Whatever the loader raises at values that have no meaning, such as 2026-13-45 or !!int x.
_MALFORMED = (
    *(yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    RecursionError,
)


@dataclass(frozen=True)
class Layer:
    """The settings that one file or one word states."""

    source: str
    """Name of a shipped config, path of another file, or ``COMMAND_LINE``."""
    tree: Tree
    replaces: tuple[str, ...] = ()
    """Keys down to a section or value of earlier layers that is replaced as a whole."""


def read_layers(configs: Sequence[Path], overrides: Sequence[str] = ()) -> list[Layer]:
    """Read configs, each after the files it is based on, and then overrides.

    Args:
        configs: YAML files, or names of shipped configs. Each may name a ``base:`` (relative to
            itself, or shipped) that it differs from, or a list of them.
        overrides: ``section.key=value`` words, the value in YAML syntax.

    Raises:
        UserError: If a file is missing or unreadable, or a word malformed.
    """
    layers = [layer for config in configs for layer in _read_file(find_config(config), ())]
    return [*layers, *map(_read_override, overrides)]


def merge_layers(layers: Sequence[Layer], start: Mapping[str, Any] | None = None) -> Tree:
    """Return the settings of all layers, merged key by key into those of ``start``."""
    merged = copy.deepcopy(dict(start or {}))
    for layer in layers:
        _drop(merged, layer.replaces)
        merged = _merge(merged, copy.deepcopy(layer.tree))
    return merged


def text_override(key: str, text: str) -> str:
    """Return the word that sets a key to a text, whatever its characters."""
    quoted = yaml.safe_dump(text, default_style='"', width=math.inf, allow_unicode=True)
    return f"{key}={quoted.strip()}"


class _Limited(Scanner):
    """Stop a YAML scanner at brackets within brackets, and at an escape of half a character.

    Its time is quadratic in the former; the latter can be written to no file.
    """

    def scan_flow_scalar(self, style: str) -> yaml.ScalarToken:
        token = super().scan_flow_scalar(style)
        if _HALF.search(token.value):
            problem = "an escape of half a character; write the character itself"
            raise ScannerError(None, None, problem, token.start_mark)
        return token

    def fetch_flow_collection_start(self, kind: type[yaml.Token]) -> None:
        if self.flow_level == _MOST_LEVELS:
            problem = f"more than {_MOST_LEVELS} brackets within one another"
            raise ScannerError(None, None, problem)
        super().fetch_flow_collection_start(kind)


class _TextLoader(_Limited, yaml.BaseLoader):
    """YAML's loader of texts alone."""


class _Loader(_Limited, yaml.SafeLoader):
    """YAML's safe loader, refusing a key given twice (the standard keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise UserError(f"{node.start_mark.name}: duplicate key '{key}' in line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Tree:
    """Return the mapping in a YAML file; empty for an empty file.

    Raises:
        UserError: If it cannot be read as a mapping.
    """
    tree = parse_yaml(read_text(path, _LARGEST_MIB, "config"), str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise UserError(f"{path}: expected 'key: value' lines, found {type(tree).__name__}")
    return tree


def _read_file(path: Path, seen: tuple[Path, ...]) -> list[Layer]:
    resolved = real_path(path)
    if resolved in seen:
        raise UserError(f"{path}: its chain of 'base:' files leads back to itself")
    tree = read_yaml(path)
    layers = []
    for base in _base_names(tree.pop("base", []), path):
        found = find_config(user_path(base), path.parent)
        layers += _read_file(found, (*seen, resolved))
    return [*layers, Layer(name_of(path), tree)]


def _base_names(base: Any, path: Path) -> list[str]:
    names = base if isinstance(base, list) else [base]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: 'base' must be a config or a list of them, found {base!r}")
    return names


def _read_override(word: str) -> Layer:
    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise UserError(f"override '{word}' is not of the form section.key=value")
    quoted = shlex.quote(text_override(key, text))
    try:
        value = parse_yaml(text, f"override '{word}'")
    except UserError as error:
        raise UserError(f"{error}; if it is a name, quote it: {quoted}") from None
    if isinstance(value, str) and text.strip() != value and text.strip()[0] not in _QUOTES:
        raise UserError(f"override '{word}': YAML reads '{value}'; quote the value: {quoted}")
    names = tuple(key.strip().split("."))
    for name in reversed(names):
        value = {name: value}
    return Layer(COMMAND_LINE, value, replaces=names)


def parse_yaml(text: str, name: str) -> Any:
    """Return the value of a YAML text of plain values.

    Args:
        text: YAML.
        name: Name of the text in errors.

    Raises:
        UserError: If it is malformed, nested too deeply, a mapping has a key twice, or aliases
            repeat too much.
    """
    return _parse(text, name, _Loader)


def parse_yaml_of_texts(text: str, name: str) -> Any:
    """Return the value of a YAML text whose scalars all stay text, such as `no` or `1`.

    Raises:
        UserError: As ``parse_yaml``; of a key given twice the last counts.
    """
    return _parse(text, name, _TextLoader)


def _parse(text: str, name: str, kind: type[_Loader | _TextLoader]) -> Any:
    try:
        loader = kind(text)
        loader.name = name
        try:
            node = loader.get_single_node()
            if _num_values(node, {}) > _MOST_VALUES:
                raise UserError(f"{name}: its aliases stand for too many values")
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except UserError:
        raise
    except _MALFORMED as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: not valid YAML: {problem}") from None


def _num_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return the number of values in a node, what an alias repeats being counted each time."""
    if id(node) not in known:
        known[id(node)] = 1  # for an alias of what contains it
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = chain.from_iterable(parts) if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(_num_values(part, known) for part in inner)
    return known[id(node)]


def _drop(tree: Tree, keys: tuple[str, ...]) -> None:
    for key in keys[:-1]:
        tree = tree.get(key, {})
        if not isinstance(tree, dict):
            return
    for key in keys[-1:]:
        tree.pop(key, None)


def _merge(base: Tree, change: Tree) -> Tree:
    merged = dict(base)
    for key, value in change.items():
        both_trees = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_trees else value
    return merged
