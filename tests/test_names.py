"""A public name means one thing in all three packages."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What each program, command and engine states under the same name, and tools that checkpoints come
# from and go to.
TWINS = {
    *("PROGRAM", "PROBLEMS_EXIT_CODE", "BEST_FILE", "DIFFERENCES_FROM_DETECTRON2"),
    *("DETECTRON2", "HUGGINGFACE", "MMPRETRAIN", "ONNX", "TIMM", "TORCHVISION"),
}


def public_names(tree):
    """Yield the classes, type aliases and constants that a module defines, type variables aside."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign) and "TypeVar(" not in ast.unparse(node.value):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_no_public_name_is_defined_twice():
    """Classes, type aliases and constants; functions may share a verb."""
    places = defaultdict(list)
    for package in ("rsa_pretrain", "rsa_eval", "detection"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in public_names(ast.parse(path.read_text())):
                if re.match("[A-Z]", name) and name not in TWINS:
                    places[name].append(path.relative_to(ROOT).as_posix())
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not twice


def test_one_function_loads_a_trunk():
    """Where the trunk comes from, goes to and is checked are three verbs."""
    functions = [
        node.name
        for path in (ROOT / "detection").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    ]
    assert functions.count("load_trunk") == 1
