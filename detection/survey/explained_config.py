"""Write a config file that gives a reason for each value."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import yaml

_WIDTH = 100


class ChosenValue(NamedTuple):
    """A setting and its reason."""

    key: str
    """``section.name``, or a name alone."""
    value: Any
    """Plain: text, a number, true or false, null, or a list of these."""
    why: str = ""
    """Comment above the value; empty if obvious or covered by the previous one."""


def explained_yaml(header: Sequence[str], choices: Iterable[ChosenValue]) -> str:
    """Return settings as YAML text.

    Args:
        header: The file's first lines, as comments; an indented one is not wrapped. External text
            must go through ``printable``.
        choices: Grouped by section.
    """
    lines = [line for text in header for line in _comment(text)]
    current = ""
    for choice in choices:
        section, _, name = choice.key.rpartition(".")
        indent = "  " if section else ""
        if section != current:
            lines.append(f"{section}:")
            current = section
        lines += _comment(choice.why, indent) if choice.why else []
        lines.append(f"{indent}{name}: {_flow(choice.value)}")
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """Return text for a comment or a terminal: one line of visible characters."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _flow(value: Any) -> str:
    """Return a value on one line, quoted where YAML would misread it."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.strip().removeprefix("[").removesuffix("]")


def _comment(text: str, indent: str = "") -> list[str]:
    start = f"{indent}# "
    if not text or text.startswith(" "):
        return [f"{start}{text}".rstrip()]
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )
