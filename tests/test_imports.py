"""Imports point one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the other packages may use of rsa_pretrain: data, weights (of other projects too), settings
# and plumbing, but neither methods nor losses nor the trainer.
SHARED = {
    "atomic_files",
    "augment",
    "backbone",
    "checkpoint",
    "collapse",
    "command_line",
    "config",
    "config_command",
    "config_files",
    "config_layers",
    "data",
    "data_config",
    "data_sets",
    "data_sets.stl10",
    "decode",
    "device",
    "distributed",
    "errors",
    "foreign.file_content",
    "foreign.layout",
    "foreign.layouts.detectron2",
    "foreign.load",
    "foreign.names",
    "foreign.plan",
    "foreign.quiet",
    "foreign.recognise",
    "foreign.targets.base",
    "image_folder",
    "image_set",
    "loader",
    "machines",
    "metadata",
    "meter",
    "metrics_log",
    "optim",
    "parallel",
    "progress",
    "read_rules",
    "sample_suffixes",
    "schedules",
    "shipped_configs",
    "stop_signal",
    "stored_modes",
    "tensor_check",
    "text_table",
    "user_paths",
}
ALLOWED = {
    "rsa_pretrain": set(),
    "rsa_eval": {f"rsa_pretrain.{name}" for name in SHARED},
    "detection": {f"rsa_pretrain.{name}" for name in SHARED} | {"rsa_eval.records.record"},
}


def imported_modules(path):
    """Every module a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_one_way(package):
    """rsa_eval uses rsa_pretrain, detection uses both; nothing points back."""
    for path in (ROOT / package).rglob("*.py"):
        for module in imported_modules(path):
            owner = module.partition(".")[0]
            if owner in ALLOWED and owner != package and path.name != "__main__.py":
                assert module in ALLOWED[package], f"{path} imports {module}"


def test_methods_do_not_import_one_another():
    """A method is composed of shared parts."""
    folder = ROOT / "rsa_pretrain" / "methods"
    for path in folder.glob("*.py"):
        if path.name != "__init__.py":
            others = set(imported_modules(path)) - {"rsa_pretrain.methods.base"}
            assert not [name for name in others if name.startswith("rsa_pretrain.methods.registry")]


def test_only_one_folder_imports_detectron2():
    """detectron2 is optional and has one door."""
    importers = {
        path.relative_to(ROOT).parent.as_posix()
        for package in ALLOWED
        for path in (ROOT / package).rglob("*.py")
        if any(module.partition(".")[0] == "detectron2" for module in imported_modules(path))
    }
    assert importers == {"detection/engines/detectron2"}


def test_nothing_prints():
    """Output goes through logging, or through say()."""
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
            assert "print" not in names, path
