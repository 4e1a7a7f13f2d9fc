"""Test config files that give a reason for each value."""

from pathlib import Path
from typing import Any

import pytest

from detection.survey.explained_config import ChosenValue, explained_yaml, printable
from rsa_pretrain.plumbing.config.files import Section, load_config


class _Inner(Section):
    value: Any
    other: int = 0


class _Outer(Section):
    name: str
    section: _Inner


AWKWARD = [
    "a: b",
    "a #b",
    "# a",
    "[1, 2]",
    "{a: 1}",
    "1e3",
    "0x10",
    "012",
    "yes",
    "null",
    "~",
    "",
    " padded ",
    "'quoted\" both\\",
    "Größe/Äpfel 数据 🚤",
    "line\nbreak",
    "- a, b",
    "*alias",
    "!tag",
    "%",
    "2024-01-02",
    "caf\udce9",
    "x" * 300,
    "words " * 40 + "end",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_text_comes_back(text: str, tmp_path: Path) -> None:
    """Whatever a path or a name looks like in YAML, the config has it as it was."""
    choices = [
        ChosenValue("name", text),
        ChosenValue("section.value", text, f"why {printable(text)}"),
    ]
    path = tmp_path / "own.yaml"
    header = [f"header {printable(text)}", "", f"  command {printable(text)}"]
    path.write_text(explained_yaml(header, choices), encoding="utf-8")
    config = load_config(_Outer, path)
    assert (config.name, config.section.value) == (text, text)


@pytest.mark.parametrize("value", [True, None, 3, 0.005, 1e-12, [1, 2.5], [], ["a, b", "c]"]])
def test_values_come_back(value: Any, tmp_path: Path) -> None:
    """Numbers, truth, null and lists of them keep their type and their value."""
    path = tmp_path / "own.yaml"
    choices = [ChosenValue("name", "x"), ChosenValue("section.value", value)]
    path.write_text(explained_yaml([], choices), encoding="utf-8")
    found = load_config(_Outer, path).section.value
    assert found == value
    assert type(found) is type(value)


def test_layout() -> None:
    """Reasons stand above their values, wrapped; commands of the header are not wrapped."""
    command = "  command " + "word " * 30 + "end"
    text = explained_yaml(
        ["Title " + "word " * 30, "", command],
        [
            ChosenValue("name", "x"),
            ChosenValue("section.value", 1, "why " * 40),
            ChosenValue("section.other", 2),
        ],
    )
    lines = text.splitlines()
    assert lines[0].startswith("# Title word")
    assert lines[1].startswith("# word")
    assert lines[2:4] == ["#", f"# {command}"]
    assert lines[4:6] == ["name: x", "section:"]
    assert lines[6].startswith("  # why why")
    assert lines[-2:] == ["  value: 1", "  other: 2"]
    assert all(len(line) <= 100 for line in lines if line != f"# {command}")


def test_printable_keeps_to_one_line() -> None:
    """Letters of every script stay; what breaks lines or cannot be seen is spelled out."""
    assert printable("Größe 数据 🚤") == "Größe 数据 🚤"
    assert printable("a\nb\u2028c") == "a\\nb\\u2028c"
