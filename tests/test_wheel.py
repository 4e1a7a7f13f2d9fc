"""The package works where it is installed, away from its source."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from rsa_pretrain.plumbing.versions import VERSION

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]


def run(*words: str | Path, cwd: Path) -> str:
    """Run a program that must succeed; return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the source distribution, which is what an index serves."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run(*build, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, and its dependencies by reference."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    run(programs / "pip", "install", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is not searched for .pth files, so the source stays out of reach.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_the_wheel_has_the_version_of_its_code(wheel: Path) -> None:
    """It is written in one place."""
    assert wheel.name.split("-")[:2] == ["rsa_toolkit", VERSION]


def test_the_wheel_holds_every_config(wheel: Path) -> None:
    """And the source distribution does, from which it was built."""
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.*")}
    assert len(configs) > 90
    with zipfile.ZipFile(wheel) as archive:
        assert {f"rsa_pretrain/{path}" for path in configs} <= set(archive.namelist())
    (source,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(source) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert configs <= names


def test_an_installed_package_trains_and_evaluates_by_name(programs: Path, tmp_path: Path) -> None:
    """Listing, resolving, two steps of pretraining and kNN, in an empty folder."""
    where = run(
        programs / "python", "-c", "import detection; print(detection.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(programs.parent)
    assert "cifar10/rsa" in run(programs / "rsa-pretrain", "configs", cwd=tmp_path)
    printed = run(programs / "rsa-pretrain", "config", "cifar10/rsa", cwd=tmp_path)
    assert "runs/cifar10-rsa-200ep" in printed
    run(programs / "rsa-detect", "config", "mask_rcnn_R_50_FPN_1x", cwd=tmp_path)
    words = ["data.num_train_images=64", "training.global_batch_size=32", "training.epochs=1"]
    words += ["optimizer.warmup_epochs=0", "monitor.log_every_steps=1"]
    run(programs / "rsa-pretrain", "run", "digits/rsa", *words, cwd=tmp_path)
    log = (tmp_path / "runs/digits-rsa-1ep/metrics.jsonl").read_text().splitlines()
    assert len(log) == 2
    knn = [programs / "rsa-eval", "knn", "runs/digits-rsa-1ep", "--config", "knn/dino"]
    run(*knn, "data.num_test_images=20", cwd=tmp_path)
    assert list((tmp_path / "runs/digits-rsa-1ep/records").glob("knn-*.json"))
