"""README and docs/: short, up to date, and every command, link and file they name exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import pytest
import yaml

from benchmarks.__main__ import command_parser
from benchmarks.semantic_masks import semantic_masks_parser
from docs import generate
from rsa_eval.evaluators.given import GIVEN_EVALUATORS
from rsa_pretrain.plumbing.command_line import Program
from rsa_pretrain.plumbing.config.files import Key, list_keys
from rsa_pretrain.plumbing.config.shipped import find_config
from rsa_pretrain.plumbing.errors import UserError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *DOCS.rglob("*.md")])
NOTEBOOKS = sorted(str(path.relative_to(ROOT)) for path in DOCS.glob("notebooks/*.ipynb"))
PROGRAMS = {program.name: program for program in generate.PROGRAMS}
MODULES = {"rsa_pretrain": "rsa-pretrain", "rsa_eval": "rsa-eval", "detection": "rsa-detect"}
BATCH_SCRIPT = "configs/slurm/pretrain.sbatch"
# Names that stand for the reader's own.
PLACEHOLDER = re.compile(r"[A-Z]+(\.[a-z]+)?|[\w./]+\.yaml")
WORDS_BEFORE_COMMANDS = ("rsa-", "torchrun ", "sbatch ", "make ", "python ")


def blocks_of(text: str) -> Iterator[str]:
    """Yield each code block that may hold commands: indented, or fenced without a language."""
    text = re.sub(r"^( *)```\w+\n.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"(?:^(?: {4}.*)?\n)*^ {4}.*\n", text, flags=re.MULTILINE)


def commands_of(text: str) -> list[list[str]]:
    """Return the commands in a page's code blocks, as words."""
    lines = "".join(blocks_of(text)).replace("\\\n", " ").splitlines()
    lines = [line.strip().removeprefix("$ ") for line in lines]
    return [
        shlex.split(line, comments=True) for line in lines if line.startswith(WORDS_BEFORE_COMMANDS)
    ]


def check_command(words: list[str]) -> None:
    """Parse a command with the parser that will run it, and find what it names.

    Raises:
        UserError: If an option, setting, config, row, benchmark or target does not exist.
    """
    match words:
        case ["make", *targets]:
            known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            if not set(targets) <= set(known):
                raise UserError(f"no target {targets}")
        case ["python", "-m", "benchmarks", *rest]:
            command_parser().parse_args(rest)
        case ["python", "-m", "benchmarks.semantic_masks", *rest]:
            semantic_masks_parser().parse_args(rest)
        case ["python", "-m", "pytest", *paths]:
            if not all((ROOT / path).exists() for path in paths):
                raise UserError(f"no tests {paths}")
        case ["python", "-m", "pydoc", name]:
            assert resolve_name(name).__doc__
        case ["python", "-m", "pip", "install", *_]:
            pass
        case ["torchrun", *_, "-m", module, command] | ["python", "-m", module, command]:
            check_program(PROGRAMS[MODULES[module]], command, [])
        case ["torchrun" | "python", *_] if "-m" in words:
            module, command, *rest = words[words.index("-m") + 1 :]
            check_program(PROGRAMS[MODULES[module]], command, rest)
        case ["sbatch", script, *rest]:
            assert script == BATCH_SCRIPT
            check_program(PROGRAMS["rsa-pretrain"], "run", rest)
        case [program, "--help"]:
            assert program in PROGRAMS
        case [program, command, "--help"]:
            PROGRAMS[program].parser(command)
        case [program, command, *rest]:
            check_program(PROGRAMS[program], command, rest)


def sets(word: str, key: Key) -> bool:
    """Return whether a dotted word is a key, a section with it, or an entry of a free-form one."""
    parts, names = word.split("."), key.name.split(".")
    fits = len(parts) <= len(names) or key.default == "default {}"
    return fits and all(name in (part, "NAME") for part, name in zip(parts, names, strict=False))


def check_program(program: Program, command: str, words: list[str]) -> None:
    """Parse the words of a command; its settings and configs must exist."""
    parser = program.parser(command)
    arguments = parser.parse_args(words)
    if parser.settings is not None:
        keys = list_keys(parser.settings)
        if getattr(arguments, "features", None):
            keys = list_keys(GIVEN_EVALUATORS[command].config)
        for word in arguments.overrides:
            if "=" in word and not any(sets(word.partition("=")[0], key) for key in keys):
                raise UserError(f"unknown setting {word}")
    for name in ("config", "suite"):
        given = getattr(arguments, name, None) or []
        for config in given if isinstance(given, list) else [given]:
            if not PLACEHOLDER.fullmatch(str(config)):
                find_config(config)


@cache
def text_of(page: str) -> str:
    """The text of a page of the project; of a notebook, its prose."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page not in NOTEBOOKS:
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells) + "\n"


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS, "results/notes.md"])
def test_commands_parse(page: str) -> None:
    """Every command of a page is understood by its program; those within a line exist."""
    commands = commands_of(text_of(page))
    assert commands
    for words in commands:
        check_command(words)
    for program, name, rest in re.findall(r"`(rsa-\w+)\s+([\w-]+)([^`]*)`", text_of(page)):
        parser = PROGRAMS[program].parser(name)
        helps = [one.format_help() for one in (parser, *generate.actions_of(parser))]
        options = {word for word in rest.split() if word.startswith("--")}
        assert any(all(word in text for word in options) for text in helps), rest


@pytest.mark.parametrize(
    "command",
    [
        "rsa-pretrain run cifar10/rsa --resumes",
        "rsa-pretrain run cifar10/rsa training.epoch=3",
        "rsa-pretrain run cifar10/rsas",
        "rsa-eval linear runs/x --config linear/moco_v3",
        "rsa-eval suite runs/x --suite cifar10 dato.root=data",
        "torchrun --nproc-per-node=8 -m rsa_eval linear runs/x --configs linear/moco_v2",
        "rsa-detect trains annotations.yaml",
        "python -m benchmarks viewed",
        "python -m pytest tests/test_import.py",
        "make demos",
    ],
)
def test_a_wrong_command_is_noticed(command: str) -> None:
    """The check of commands can fail."""
    with pytest.raises(UserError):
        check_command(shlex.split(command))


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_opens_with_a_command(page: str) -> None:
    """Before its first section, and before the first paragraph of prose."""
    opening = re.sub(r"<!--.*?-->", "", text_of(page), flags=re.DOTALL).strip().split("\n\n")
    assert opening[0].startswith("# ")
    assert commands_of(opening[1] + "\n")


def test_readme_fits_one_page() -> None:
    """Anything longer belongs to docs/."""
    assert len(text_of("README.md").splitlines()) <= 130


@pytest.mark.parametrize("path", generate.FILES, ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(path: Path) -> None:
    """`python docs/generate.py` would change nothing."""
    assert path.read_text(encoding="utf-8") == generate.FILES[path]()


def leaves(nav: object) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for entry in nav.values():
            yield from leaves(entry)
    elif isinstance(nav, list):
        for entry in nav:
            yield from leaves(entry)


def test_every_page_is_in_the_navigation() -> None:
    """Once each; pages of the top level may be there too."""
    nav = yaml.safe_load(text_of("mkdocs.yml"))["nav"]
    listed = list(leaves(nav))
    assert len(set(listed)) == len(listed)
    own = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert own <= set(listed)
    assert all((ROOT / name).is_file() for name in set(listed) - own)


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS])
def test_links_and_named_files_exist(page: str) -> None:
    """Relative links from the page, and files of the project from its root."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", text)
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert ((ROOT / page).parent / link).exists(), link
    folders = "rsa_pretrain|rsa_eval|detection|benchmarks|configs|docs|results|tests"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name


def test_python_blocks_name_what_exists() -> None:
    """Imports of README and docs work, and so do the objects of the Python page."""
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL):
            compile(block, page, "exec")
            for module, names in re.findall(r"^from (\S+) import (.+)$", block, re.MULTILINE):
                for name in names.split(", "):
                    resolve_name(f"{module}:{name.partition(' as ')[0]}")
    named = re.findall(r"^::: (\S+)$", text_of("docs/api.md"), flags=re.MULTILINE)
    assert len(named) > 10
    for name in named:
        assert resolve_name(name).__doc__, name


@pytest.mark.process
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed (extra: docs)")
def test_the_site_builds(tmp_path: Path) -> None:
    """Strictly: a broken link, anchor or docstring reference is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "load_backbone" in (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
