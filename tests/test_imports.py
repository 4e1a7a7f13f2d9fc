"""Imports point one way: down the packages, and down the folders of each package."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top of each package to its ground; a folder or file imports only from those below it.
FLOORS = {
    "rsa_pretrain": (
        "toolkit __main__ commands training config weights methods components views data plumbing"
    ),
    "rsa_eval": (
        "__main__ commands serve report audit campaigns paper verdicts evaluators features records "
        "statistics config"
    ),
    "detection": (
        "__main__ commands export run engines exchange job survey pictures feeding recipe coco"
    ),
}
# The proof of an exchanged trunk asks detectron2 itself, when it is called.
UPWARDS = {("detection/exchange/proof.py", "detection.engines.detectron2.features")}

# Where the packages meet.
PROGRAMS = {"__main__", "toolkit"}

# The rooms of rsa_pretrain that the other packages use: neither methods nor the loop. Programs and
# commands, where the packages meet, use all of it.
SHARED = {"config", "weights", "components", "views", "data", "plumbing"}
BELOW = {"rsa_pretrain": set(), "rsa_eval": {"rsa_pretrain"}, "detection": {"rsa_pretrain"}}


def imported_modules(path):
    """Yield every module a file imports, in functions too; a module imported by name in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_module(full) else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_module(name):
    """Return whether a dotted name is a file or folder of this project."""
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def imports_of(package):
    """Yield the path and the imported module of every import in a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for module in imported_modules(path):
            yield path.relative_to(ROOT).as_posix(), module


def room(name):
    """Return a module's folder or file on the top level of its package."""
    return name.split(".")[1] if "." in name else "__init__"


def room_of(path):
    """Return the room of a file, given relative to the repository."""
    return path.removesuffix(".py").split("/")[1]


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_a_floor(package):
    """At most a dozen rooms below the roof, all of them in the order."""
    floors = FLOORS[package].split()
    entries = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py"}
    entries |= {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()}
    assert entries - {"__init__"} == set(floors)
    assert len(floors) - 1 <= 12


@pytest.mark.parametrize("package", FLOORS)
def test_the_documentation_shows_the_house(package):
    """Its tables list the rooms from the roof to the ground."""
    page = (ROOT / "docs" / "structure.md").read_text()
    section = page.split(f"\n## {package}:")[1].split("\n## ")[0]
    rooms = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    shown = [name.removesuffix(".py").removesuffix("/") for name in rooms]
    assert shown == [name for name in FLOORS[package].split() if name != "__main__"]


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_from_the_floors_below(package):
    """No import inside a package points up, but for the documented one."""
    # Above all is what the package itself offers.
    floors = ["__init__", *FLOORS[package].split()]
    for path, module in imports_of(package):
        inside = module.partition(".")[0] == package and room(module) != room_of(path)
        if not inside or (path, module) in UPWARDS:
            continue
        below = floors[floors.index(room_of(path)) + 1 :]
        assert room(module) in below, f"{path} imports {module}"


@pytest.mark.parametrize("package", FLOORS)
def test_packages_import_one_way(package):
    """rsa_eval uses rsa_pretrain, detection uses both; nothing points back."""
    for path, module in imports_of(package):
        owner = module.partition(".")[0]
        if owner not in FLOORS or owner == package or room_of(path) in PROGRAMS:
            continue
        if (package, owner) == ("detection", "rsa_eval"):
            assert room(module) in {"records", "statistics"}, f"{path} imports {module}"
        else:
            assert owner in BELOW[package], f"{path} imports {module}"
            assert room(module) in SHARED, f"{path} imports {module}"


def test_methods_do_not_import_one_another():
    """A method is composed of shared parts."""
    names = {path.stem for path in (ROOT / "rsa_pretrain" / "methods").glob("*.py")}
    shared = {"__init__", "registry", "base", "settings"}
    for path, module in imports_of("rsa_pretrain/methods"):
        if Path(path).stem not in shared and module.startswith("rsa_pretrain.methods."):
            assert module.split(".")[2] in shared & names, f"{path} imports {module}"


def test_only_one_folder_imports_detectron2():
    """detectron2 is optional and has one door."""
    importers = {
        Path(path).parent.as_posix()
        for package in FLOORS
        for path, module in imports_of(package)
        if module.partition(".")[0] == "detectron2"
    }
    assert importers == {"detection/engines/detectron2"}


def test_nothing_prints():
    """Output goes through logging, or through say()."""
    for package in FLOORS:
        for path in (ROOT / package).rglob("*.py"):
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
            assert "print" not in names, path


def test_one_file_uses_private_names_of_torch():
    """Whatever a release of torch renames is mended in one place (``torch._check`` is public)."""
    users = set()
    for package in FLOORS:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
            used = {f"{ast.unparse(n.value)}.{n.attr}" for n in attributes} | {
                f"{n.module}." for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
            }
            if any(name.startswith("torch._") for name in used - {"torch._check"}):
                users.add(path.relative_to(ROOT).as_posix())
    assert users == {"rsa_pretrain/plumbing/torch_internals.py"}
