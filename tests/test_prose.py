"""Docstrings keep to the few rules of prose that a machine can check."""

import ast
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("rsa_pretrain", "rsa_eval", "detection")
FOLDERS = (*PACKAGES, "benchmarks", "tests")

# Say resume, regenerate, anyone, separate, its; and open with the reader's verb.
FORBIDDEN = re.compile(
    r"\banew\b|\b(go|goes|going) on\b|\bwhoever\b|\bof (its|their) own\b|\btold apart\b",
    re.IGNORECASE,
)
RIDDLE = re.compile(r"(What|Which|Whether|How) ")

DOTTED = re.compile(r"``([a-z]\w*(?:\.[A-Za-z_]\w*)+)``")
# Names of files, and names that only other libraries define.
FILE = re.compile(r"\.(bin|cls|jpg|json|jsonl|mat|npy|npz|pth|safetensors|txt|yaml)$")
FOREIGN = {
    *("backbone.fpn", "copyreg._reconstructor", "numpy._reconstruct", "torch._foreach"),
    "torch.storage._load_from_bytes",
}


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


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_plain(path):
    """The same words are avoided in their text, code and comments."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [
        cell["id"] for cell in cells if FORBIDDEN.search(" ".join("".join(cell["source"]).split()))
    ]
    assert not found


@cache
def names_in_use():
    """Return every identifier in the code and, by module, the names that it defines or imports."""
    everywhere, by_module = set(), defaultdict(set)
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        module = path.parent.name if path.stem == "__init__" else path.stem
        used = {
            part
            for node in ast.walk(ast.parse(path.read_text()))
            for field in ("id", "attr", "name", "arg", "asname", "module")
            if isinstance(name := getattr(node, field, None), str)
            for part in name.split(".")
        }
        by_module[module] |= used
        everywhere |= used | set(path.relative_to(ROOT).with_suffix("").parts)
    return everywhere, by_module


@pytest.mark.parametrize("package", PACKAGES)
def test_names_in_docstrings_exist(package):
    """Of ``module.name``, each part is in the code, and a class or constant in that module."""
    everywhere, by_module = names_in_use()
    stale = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for line, text in docstrings(path):
            for name in set(DOTTED.findall(text)) - FOREIGN:
                parts = name.removesuffix(".py").split(".")
                owner, last = ["", *parts][-2:]
                is_defined = last[0].islower() or last in by_module.get(owner, {last})
                if not FILE.search(name) and not (is_defined and everywhere.issuperset(parts)):
                    stale.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not stale, "\n".join(stale)
