"""The package works where it is installed, away from its source."""

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
    """The programs of an environment with the wheel, its dependencies by reference, no extra."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    run(programs / "pip", "install", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    for place in core_dependencies():
        if not (packages / place.name).exists():
            (packages / place.name).symlink_to(place)
    return programs


def core_dependencies() -> set[Path]:
    """Return the folders and files of all packages that an installation without extras brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting, seen, places = [Requirement(word) for word in project["dependencies"]], set(), set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found = distribution(wanted.name)
        parts = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
        places |= {Path(str(found.locate_file(part))) for part in parts}
        for one in map(Requirement, found.requires or ()):
            extras = ({"extra": extra} for extra in ("", *wanted.extras))
            if one.marker is None or any(map(one.marker.evaluate, extras)):
                waiting.append(one)
    return places


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
    """Listing, resolving, two steps of pretraining and every step to a report, in an empty folder.

    No extra is installed.
    """
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
    few = ["data.num_train_images=40", "data.num_test_images=20"]
    suite = [programs / "rsa-eval", "suite", "runs/digits-rsa-1ep", "--random-init"]
    run(*suite, "--suite", "digits_quick", *few, cwd=tmp_path)
    sides = [
        next(tmp_path.glob(f"runs/eval-digits_quick/{side}-*")) for side in ("digits", "random")
    ]
    assert "Of 2 evaluations" in run(programs / "rsa-eval", "compare", *sides, cwd=tmp_path)
    run(programs / "rsa-eval", "report", "runs", "--out", "report.html", cwd=tmp_path)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("rsa-detect train toy_shapes --random-init", "detect"),
        ("rsa-detect evaluate toy_shapes found.json", "detect"),
        ("rsa-toolkit detect toy shapes", "detect"),
        ("rsa-pretrain export absent.safetensors x.pkl --to detectron2", "detect"),
        ("rsa-pretrain download pcam data", "hdf5"),
        ("rsa-eval knn hf://user/name --config data/digits --out x.json", "hub"),
        ("rsa-eval knn timm:resnet18 --random-init --config data/digits --out x.json", "networks"),
    ],
)
def test_a_command_without_its_extra_names_it(
    programs: Path, tmp_path: Path, words: str, extra: str
) -> None:
    """In one line, and before anything is written."""
    program, *rest = words.split()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [programs / program, *rest], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"; pip install 'rsa-toolkit[{extra}]'\n")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_toolkit_lists_its_programs(programs: Path, tmp_path: Path) -> None:
    """It is what ``uvx rsa-toolkit`` runs."""
    listed = run(programs / "rsa-toolkit", cwd=tmp_path)
    assert all(f"\n{name}  " in listed for name in ("rsa-pretrain", "rsa-eval", "rsa-detect"))
    assert run(programs / "rsa-toolkit", "--version", cwd=tmp_path) == f"rsa-toolkit {VERSION}\n"
