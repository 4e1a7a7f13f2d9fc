"""The worked examples of docs/extend: each diff applies, and its commands and tests work."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from preloaded import Python

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "extend").glob("*.md"))
COPIED = ("rsa_pretrain", "rsa_eval", "detection", "configs", "tests", "pyproject.toml")
RUN_PAGE = "tests/support/run_page.py"
# Runs a file with the sources of the current folder: what was imported of others is forgotten.
FROM_HERE = """
import os, runpy, sys

ours = ("rsa_pretrain", "rsa_eval", "detection", "narrow", "preloaded", "quick")
for name in list(sys.modules):
    if name.partition(".")[0] in ours:
        del sys.modules[name]
sys.path.insert(0, os.getcwd())
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def apply_diff(page: Path, folder: Path) -> None:
    """Apply the one diff of a page to the files below a folder."""
    text = page.read_text(encoding="utf-8")
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    # Inside a repository, git would pass over files of that name elsewhere.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    done = subprocess.run(
        ["git", "apply"], input=diff, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"the diff of {page} no longer applies: {done.stderr}"


def comparable(output: str) -> list[str]:
    """Return the lines of an output without decimals, width of columns and number of tests."""
    output = re.sub(r"^\.+ +\[100%\]$", "", output, flags=re.MULTILINE)
    output = re.sub(r"\d+ (passed|deselected)", r"# \1", output)
    output = re.sub(r"\d+\.\d+", "#", output)
    output = re.sub(r" \(\d+:\d\d:\d\d\)", "", output)
    return [" ".join(line.split()) for line in output.splitlines() if line.strip()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources, configs and tests, with the bytecode that is there."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy2(source, folder / name)
    return folder


def test_there_is_a_page_for_each_part() -> None:
    """A method, a data set, an evaluator and a layout."""
    assert [page.stem for page in PAGES] == ["data_set", "evaluator", "layout", "method"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_an_example_works(
    page: Path, copy: Path, python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applied to the sources as they are, its commands print what the page shows."""
    apply_diff(page, copy)
    found = copy.parent / "found.json"
    monkeypatch.chdir(copy)
    # The examples' tests need no plugin, and importing those takes as long as some of them.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    done = python.run("-c", FROM_HERE, RUN_PAGE, page, found)
    assert done.returncode == 0, done.stderr
    commands = json.loads(found.read_text(encoding="utf-8"))
    for command in commands:
        expected = comparable(command["shown"])
        assert comparable(command["found"]) == expected, f"{command['command']}\n{done.stderr}"
    assert re.fullmatch(r"# passed(, # deselected)? in #s", expected[-1])


def test_a_diff_that_no_longer_fits_is_noticed(copy: Path) -> None:
    """Where a line beside an insertion has changed, nothing is applied."""
    registry = copy / "rsa_pretrain" / "methods" / "registry.py"
    registry.write_text(registry.read_text().replace('"simclr"', '"renamed"'))
    with pytest.raises(AssertionError, match=r"no longer applies: .*registry\.py"):
        apply_diff(ROOT / "docs" / "extend" / "method.md", copy)
