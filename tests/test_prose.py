"""Docstrings keep to the few rules of prose that a machine can check."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("rsa_pretrain", "rsa_eval", "detection", "benchmarks", "tests")

# Say resume, regenerate, anyone, separate, its; and open with the reader's verb.
FORBIDDEN = re.compile(
    r"\banew\b|\b(go|goes|going) on\b|\bwhoever\b|\bof (its|their) own\b|\btold apart\b",
    re.IGNORECASE,
)
RIDDLE = re.compile(r"(What|Which|Whether|How) ")


def docstrings(path):
    """Yield line and text of every docstring: of modules, classes, functions and fields."""
    for node in ast.walk(ast.parse(path.read_text())):
        for child in ast.iter_child_nodes(node):
            value = child.value if isinstance(child, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield child.lineno, value.value


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_are_plain(folder):
    """No archaic words, and no first line that poses a riddle."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip().splitlines()[0]}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in docstrings(path)
        if FORBIDDEN.search(" ".join(text.split())) or RIDDLE.match(text)
    ]
    assert not found, "\n".join(found)
