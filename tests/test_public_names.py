"""The packages offer names at their top, for notebooks."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("rsa_pretrain", "rsa_eval", "detection")


def typed_names(package):
    """Return the names that type checkers see at the top of a package, with their modules."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    assert choice.test.id == "TYPE_CHECKING"
    return {alias.asname: node.module for node in choice.body for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_offered_names_are_those_that_are_typed(package):
    """Each is defined where the type checker looks for it, documented, and listed by ``dir``."""
    module = import_module(package)
    names = typed_names(package)
    assert sorted(names) == dir(module)
    for name, home in names.items():
        offered = getattr(module, name)
        assert offered is getattr(import_module(home), name)
        assert not callable(offered) or offered.__module__ == home
        assert offered.__doc__
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'absent'"):
        _ = module.absent


@pytest.mark.process
def test_importing_the_packages_costs_nothing():
    """No library is imported before a name is used."""
    packages = ", ".join(PACKAGES)
    code = f"import sys, {packages}; print({{'torch', 'pydantic', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("set()\n", "")
