"""The container files and their page agree with each other, the sources and the extras."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

from detection.__main__ import PROGRAM as DETECT
from rsa_eval.__main__ import PROGRAM as EVALUATE
from rsa_pretrain.__main__ import PROGRAM as PRETRAIN

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "containers.md").read_text()
FILES = {kind: ROOT / f"docs/containers/Dockerfile.{kind}" for kind in ("cpu", "cuda")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PROGRAMS = {"pretrain": PRETRAIN, "eval": EVALUATE, "detect": DETECT}


def arguments_of(kind):
    """The build arguments of a container file, with their defaults."""
    found = re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', FILES[kind].read_text(), flags=re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("kind", FILES)
def test_the_page_has_the_versions_of_the_file(kind):
    """Bases, torch, torchvision and detectron2's revision."""
    rows = [
        line.split(" | ")[1 + list(FILES).index(kind)]
        for line in PAGE.splitlines()
        if line.startswith(("| base ", "| torch, ", "| detectron2 "))
    ]
    base, torch, detectron2 = (row.rstrip(" |") for row in rows)
    given = arguments_of(kind)
    assert torch.startswith(f"{given['TORCH']}, {given['TORCHVISION']}, ")
    if kind == "cpu":
        assert (base, detectron2) == (given["BASE"], "none")
        return
    ubuntu = f"ubuntu{given['UBUNTU']}"
    assert f"nvidia/cuda:{given['CUDA']}-devel-{ubuntu}; run: ubuntu:{given['UBUNTU']}" in base
    archs = given["TORCH_CUDA_ARCH_LIST"].removesuffix("+PTX").replace(";", ", ")
    assert detectron2 == f"{given['DETECTRON2']}, compiled for {archs} and PTX"
    assert f"detectron2@{given['DETECTRON2']}" in PAGE
    assert given["TORCH_INDEX"].endswith("cu" + given["CUDA"].replace(".", "")[:3])


@pytest.mark.parametrize("kind", FILES)
def test_a_file_copies_all_that_the_build_reads(kind):
    """Every folder and file of the wheel, and nothing that does not exist."""
    text = FILES[kind].read_text()
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.MULTILINE)
        for word in line.split()[:-1]
    }
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    read = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "README.md", "LICENSE"}
    assert copied == read
    (extras,) = re.findall(r'pip install "/source\[([\w,-]+)\]"', text)
    assert set(extras.split(",")) <= set(EXTRAS)
    ignored = FILES[kind].with_name(f"{FILES[kind].name}.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in read} <= set(ignored)


@pytest.mark.parametrize("kind", FILES)
def test_the_versions_are_those_that_the_toolkit_admits(kind):
    """No older torch and torchvision than pyproject.toml asks for."""
    lowest = dict(re.findall(r"(\w+)>=([\d.]+)", " ".join(PROJECT["dependencies"])))
    given = arguments_of(kind)
    for name in ("torch", "torchvision"):
        assert Version(given[name.upper()]) >= Version(lowest[name])


@pytest.mark.parametrize("kind", FILES)
def test_the_final_image_is_small_and_not_of_root(kind):
    """Its base has a tag; it compiles nothing, runs as a user and starts the toolkit."""
    build, final = re.split("^FROM ", FILES[kind].read_text(), flags=re.MULTILINE)[1:]
    tag = re.compile(r"^(\$\{BASE\}|[\w/]+:[\w.${}-]+)( AS build)?\n")
    assert tag.match(build)
    assert tag.match(final)
    assert ":" in arguments_of(kind).get("BASE", ":")
    assert not re.search(r"pip install|-dev\b|gcc|g\+\+|\bgit\b", final)
    assert re.search(r"^USER (?!root|0\b)", final, re.MULTILINE)
    assert final.endswith('ENTRYPOINT ["rsa-toolkit"]\n')
    assert re.findall(r"image\.(\w+)=", final) == ["title", "description", "licenses"]


def test_the_page_has_every_extra():
    """One row each."""
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", PAGE, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(EXTRAS)


def test_commands_after_the_toolkit_are_understood():
    """The words after `rsa-toolkit` on the page are a program, a command and its words."""
    found = re.findall(
        r"^    .*rsa-toolkit(?::\w+)? (pretrain|eval|detect) (.+)$",
        PAGE.replace("\\\n", " "),
        flags=re.MULTILINE,
    )
    assert len(found) >= 4
    for program, rest in found:
        command, *words = shlex.split(rest)
        PROGRAMS[program].parser(command).parse_args(words)
