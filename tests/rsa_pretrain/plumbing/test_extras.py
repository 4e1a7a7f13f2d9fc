"""Missing packages are reported with the extra that installs them."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import (
    EXTRA_OF,
    check_packages,
    how_to_install,
    import_extra,
    missing_extra,
)

ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# The distribution of a package that is named otherwise, or comes along with it.
BROUGHT_BY = {"braceexpand": "webdataset", "imagecorruptions": "imagecorruptions-imaug"}


def plain(name: str) -> str:
    """Return the name of a requirement as indexes compare names."""
    return re.split(r"[\[><=]", name)[0].lower().replace("_", "-")


@pytest.mark.parametrize("package", EXTRA_OF)
def test_the_named_extra_installs_the_package(package: str) -> None:
    """The table agrees with pyproject.toml."""
    name = plain(BROUGHT_BY.get(package, package))
    assert name in {plain(entry) for entry in EXTRAS[EXTRA_OF[package]]}


def test_every_extra_has_a_package() -> None:
    """But for those of developers."""
    assert {*EXTRAS} - {*EXTRA_OF.values()} == {"dev", "docs"}


def test_the_core_has_no_optional_package() -> None:
    """No package is in both."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not {plain(entry) for entry in project["dependencies"]} & {plain(p) for p in EXTRA_OF}


@pytest.mark.parametrize(
    ("packages", "command"),
    [
        (["timm"], "pip install 'rsa-toolkit[networks]'"),
        (["onnx", "timm", "mmpretrain"], "pip install 'rsa-toolkit[export,networks]' mmpretrain"),
        (["mmpretrain"], "pip install mmpretrain"),
    ],
)
def test_how_to_install(packages: list[str], command: str) -> None:
    """One command: extras where there are some, and the names of other packages."""
    assert how_to_install(packages) == command


def test_what_is_missing_is_named() -> None:
    """The error leaves out what is installed."""
    check_packages(["torch"], "this")
    with pytest.raises(UserError, match=r"^this needs no_such_package; pip install no_such"):
        check_packages(["torch", "no_such_package"], "this")


def test_other_failures_of_imports_are_not_explained() -> None:
    """A module that is missing without being optional is a defect, and so is a missing name."""
    for name in ("no_such_package", "rsa_pretrain.absent"):
        assert missing_extra(ModuleNotFoundError("No module", name=name)) is None
    assert missing_extra(ImportError("cannot import name", name="timm")) is None
    message = missing_extra(ModuleNotFoundError("No module", name="onnx.helper"))
    assert message is not None
    assert "'rsa-toolkit[export]'" in message


def test_a_broken_package_is_reported_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line quotes the failure of its import."""
    (tmp_path / "wandb.py").write_text("from os import absent\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match=r"^a run needs the package wandb .cannot import name 'abs"):
        import_extra("wandb", "a run")
