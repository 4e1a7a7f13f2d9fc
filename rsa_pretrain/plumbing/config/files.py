"""Read YAML files and ``key=value`` overrides into one frozen, validated model."""

import ast
import difflib
import hashlib
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_jsonable_python

from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.layers import COMMAND_LINE, Tree, merge_layers, read_layers
from rsa_pretrain.plumbing.config.messages import in_our_words, is_stated_apart
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import user_path


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error, and ``~`` is the home folder."""

    # Most commands validate few of the sections that they import.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    @field_validator("*")
    @classmethod
    def _expand_paths(cls, value: Any) -> Any:
        return user_path(value) if isinstance(value, Path) else value


SectionT = TypeVar("SectionT", bound=Section)


def load_config(
    model: type[SectionT],
    configs: str | Path | Sequence[str | Path] | None = None,
    overrides: Sequence[str] = (),
    start: Mapping[str, Any] | None = None,
) -> SectionT:
    """Read the settings of one run.

        load_config(PretrainConfig, "cifar10/rsa", ["data.root=data", "training.epochs=20"])
        load_config(KNNConfig, start={"data": {"name": "digits", "image_size": 32}})

    Args:
        model: The settings to fill; it defines every default.
        configs: YAML files or names of shipped configs, as in ``read_layers``; later ones win;
            None starts from the defaults alone.
        overrides: ``section.key=value`` strings, the value in YAML syntax; later ones win.
        start: Settings that the files and the overrides change.

    Returns:
        The validated settings.

    Raises:
        UserError: If a file is unreadable, a key unknown (the nearest valid one is named),
            an override malformed or a value invalid.
    """
    names = [configs] if isinstance(configs, str | Path) else configs or ()
    paths = [user_path(name) for name in names]
    layers = read_layers(paths, overrides)
    stated = [".".join(layer.replaces) for layer in layers if layer.source == COMMAND_LINE]
    source = str(paths[-1]) if paths else None
    return parse_tree(model, merge_layers(layers, start), source, stated)


def parse_tree(
    model: type[SectionT],
    tree: Mapping[str, Any],
    source: str | None,
    stated_elsewhere: Sequence[str] = (),
) -> SectionT:
    """Validate a tree of plain values.

    Args:
        model: The settings to fill.
        tree: The values.
        source: Name of the tree in errors, if it has one.
        stated_elsewhere: Dotted keys of settings and sections that are not the source's.

    Raises:
        UserError: As ``load_config``.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        # If a setting is invalid, settings derived from it are missing, too.
        details = [
            detail for detail in error.errors() if detail["type"] != "default_factory_not_called"
        ]
        messages = [_describe(detail, model, tree) for detail in details]
        keys = [_dotted(detail["loc"], tree) for detail in details]
        leaves = flatten(tree) if stated_elsewhere else {}  # a file's tree may be no mapping
        is_blamed = not all(is_stated_apart(key, stated_elsewhere, leaves) for key in keys)
        name = f"{source}: " if source is not None and is_blamed else ""
        raise UserError(name + "; ".join(messages)) from None


def to_tree(config: Section) -> Tree:
    """Return the settings as plain JSON-compatible values."""
    return config.model_dump(mode="json")


def write_config(config: Section, path: Path) -> None:
    """Write every resolved setting as YAML, atomically."""
    write_text(path, yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True))


def to_flow_yaml(value: object) -> str:
    """Return a plain value as one line of YAML, which ``key=value`` words take."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000
    )
    return text.removesuffix("...\n").strip()


def config_hash(config: Section) -> str:
    """Return the SHA-256 of the settings' canonical JSON, as hex digits."""
    canonical = json.dumps(to_tree(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree under their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


class Key(NamedTuple):
    """One setting, as documentation shows it."""

    name: str
    """Dotted, from the top of the file."""
    default: str
    """``required``, ``derived``, or ``default`` and the value in YAML syntax."""
    meaning: str
    variants: tuple[str, ...] = ()
    """Where a section has several forms, such as one per method: those with this very setting."""


def list_keys(model: type[BaseModel]) -> list[Key]:
    """Return every key of a model, in the order of its fields.

    A key that means different things in the forms of a section is listed once for each meaning.
    """
    listed: dict[str, dict[Key, tuple[str, ...]]] = {}
    for key, owner, name, variant in _walk(model):
        field = owner.model_fields[name]
        meaning = field.description or _meanings(owner).get(name, "")
        variants = listed.setdefault(key, {})
        same = Key(key, _default(field), meaning)
        variants[same] = (*variants.get(same, ()), *variant)
    return [
        key._replace(variants=variants)
        for keys in listed.values()
        for key, variants in keys.items()
    ]


def describe_keys(model: type[BaseModel]) -> str:
    """Return one line per key: its dotted name, default and meaning (for ``--help``)."""
    lines = []
    for key in list_keys(model):
        meaning = key.meaning.replace("\n", "\n      ")
        words = f"{', '.join(key.variants)}; {key.default}" if key.variants else key.default
        lines.append(f"  {key.name}  ({words})\n      {meaning}")
    return "\n".join(lines)


@cache
def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings beneath the fields of a section and its base classes."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match text:
                    case ast.Expr(ast.Constant(str(meaning))):
                        found[field.target.id] = inspect.cleandoc(meaning)
    return found


def _describe(detail: ErrorDetails, model: type[BaseModel], tree: Mapping[str, Any]) -> str:
    key = _dotted(detail["loc"], tree)
    if detail["type"] == "extra_forbidden":
        keys = [name for name, *_ in _walk(model)]
        sections = {name.rpartition(".")[0] for name in keys} - {""}
        section = key.rpartition(".")[0]
        if key in {*keys, *sections}:
            choice = f"{section}.{_choosers(model).get(section, 'name')}"
            return f"'{key}' is not a setting of this '{section}' but of another '{choice}'"
        siblings = [name for name in keys if section and name.rpartition(".")[0] == section]
        valid = siblings or [*keys, *sorted(sections)]
        nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
        hint = f"; the nearest valid key is '{nearest[0]}'" if nearest else ""
        return f"unknown key '{key}'{hint}"
    if detail["type"] == "missing":
        return f"'{key}' is required and not set"
    if detail["type"] == "union_tag_invalid":
        context = detail["ctx"]
        chooser = context["discriminator"].strip("'")
        found = f"'{key}.{chooser}' is '{context['tag']}'"
        return f"{found}, expected one of {context['expected_tags']}"
    message = in_our_words(detail["msg"].removeprefix("Value error, "))
    if not key:
        return message
    # A whole section would hide the message.
    found = "" if isinstance(detail["input"], Mapping) else f" (found {detail['input']!r})"
    return f"'{key}': {message}{found}"


def _dotted(location: tuple[int | str, ...], tree: Mapping[str, Any]) -> str:
    # A discriminated union puts its tag into the location; the user's file has no such level.
    parts: list[str] = []
    here: Any = tree
    for index, part in enumerate(location):
        if isinstance(here, Mapping):
            if part not in here and index + 1 < len(location):
                continue
            here = here.get(part)
        parts.append(str(part))
    return ".".join(parts)


def _walk(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, type[BaseModel], str, tuple[str, ...]]]:
    """Yield (dotted key, model that owns it, field name, form of the section) for every leaf.

    For sections keyed by name, ``NAME`` stands for the name. The form is empty but where a field
    takes one of several sections, told by a discriminator: there it is the discriminator's value.
    """
    for name, field in model.model_fields.items():
        below, annotation = f"{prefix}{name}.", field.annotation
        if typing.get_origin(annotation) is dict:
            below, annotation = f"{below}NAME.", typing.get_args(annotation)[1]
        sections = [kind for kind in _members(annotation) if _is_section(kind)]
        if not sections:
            yield f"{prefix}{name}", model, name, ()
        for section in sections:
            form = ()
            if isinstance(field.discriminator, str):
                form = typing.get_args(section.model_fields[field.discriminator].annotation)
            for key, owner, leaf, inner in _walk(section, below):
                is_same = leaf == field.discriminator and _must_choose(sections, leaf)
                yield key, owner, leaf, inner or (() if is_same else form)


def _must_choose(sections: Sequence[type[BaseModel]], chooser: str) -> bool:
    """Return whether none of a section's forms is taken where the chooser is left out."""
    return all(section.model_fields[chooser].is_required() for section in sections)


def _choosers(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Return the key that chooses the form of each section with several, by the section's key."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.discriminator, str):
            found[f"{prefix}{name}"] = field.discriminator
        for kind in _members(field.annotation):
            if _is_section(kind):
                found |= _choosers(kind, f"{prefix}{name}.")
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return "derived"
    default = to_jsonable_python(field.get_default(call_default_factory=True))
    return f"default {to_flow_yaml(default)}"


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
