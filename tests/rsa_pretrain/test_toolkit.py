"""The command that leads to the programs, and what it says of names and packages in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsa_pretrain.plumbing import import_names
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.import_names import check_import_names
from rsa_pretrain.plumbing.versions import VERSION
from rsa_pretrain.toolkit import detect, main

ROOT = Path(__file__).parents[2]


def test_every_program_and_command_is_listed(capsys):
    """Without words and with --help."""
    assert main([]) == 0
    text = capsys.readouterr().out
    for line in ("rsa-pretrain  Self", "rsa-eval  Evaluate", "rsa-detect  Transfer"):
        assert line in text
    assert "\n  knn                 classify by nearest neighbours\n" in text
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("program", ["eval", "rsa-eval"])
def test_a_program_runs_by_either_name(capsys, program):
    """With the words that follow, and its own errors."""
    assert main([program, "--version"]) == 0
    assert capsys.readouterr().out == f"rsa-eval {VERSION}\n"
    assert main([program, "kn"]) == 2
    assert "unknown command 'kn'; the nearest is 'knn'" in capsys.readouterr().err


def test_version_and_mistakes(capsys):
    """One line each."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rsa-toolkit {VERSION}\n"
    assert main(["train"]) == 2
    assert "unknown program 'train'; expected one of rsa-pretrain" in capsys.readouterr().err


def other_package(folder, text):
    """Write a package named detection."""
    (folder / "detection").mkdir(parents=True)
    (folder / "detection" / "__init__.py").write_text(text)


def run_first_on_path(folder, program):
    """Run a program where a folder's packages come before the toolkit's; return code and error."""
    code = f"""
import sys
sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]
sys.argv[1:] = ["config", "absent"]
{program}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    "program",
    [
        "from rsa_pretrain.toolkit import detect; sys.exit(detect())",
        "from rsa_pretrain.__main__ import main; sys.exit(main())",
        "from rsa_eval.__main__ import main; sys.exit(main())",
    ],
    ids=["rsa-detect", "rsa-pretrain", "rsa-eval"],
)
def test_another_package_named_detection_is_named_at_start(tmp_path, program):
    """All three programs say where it is, with the distribution that it belongs to."""
    other_package(tmp_path, "")
    metadata = tmp_path / "yolo_things-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: yolo-things\nVersion: 1.0\n")
    (metadata / "top_level.txt").write_text("detection\n")
    code, error = run_first_on_path(tmp_path, program)
    assert code == 2
    assert error.startswith("error: the import name 'detection' leads to")
    assert f"'{tmp_path}/detection/__init__.py' of yolo-things, expected this toolkit's" in error
    assert error.count("\n") == 1


def test_a_package_written_over_ours_is_noticed(tmp_path, monkeypatch):
    """The file is where ours should be, and is another's."""
    other_package(tmp_path, "import torch\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "detection", raising=False)
    monkeypatch.setattr(import_names, "PACKAGES", ("detection",))
    monkeypatch.setattr(import_names, "_FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"leads to '.*', written over this toolkit's; "):
        check_import_names()


def test_a_package_without_its_first_file_is_incomplete(tmp_path, monkeypatch):
    """As another's removal can leave it."""
    (tmp_path / "detection" / "coco").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "detection", raising=False)
    monkeypatch.setattr(import_names, "PACKAGES", ("detection",))
    with pytest.raises(UserError, match=r"'detection' is missing or incomplete in .*install"):
        check_import_names()


WITHOUT_PYCOCOTOOLS = """
import sys
sys.modules["pycocotools"] = None
from rsa_pretrain.toolkit import main
sys.exit(main())
"""


def run_without_pycocotools(folder, *words):
    """Run rsa-toolkit in a folder, where pycocotools is not installed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_PYCOCOTOOLS, *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


@pytest.mark.process
@pytest.mark.parametrize(
    "words",
    [
        ("detect", "train", "toy_shapes", "--random-init"),
        ("detect", "convert", "absent.safetensors", "x.pkl"),
        ("detect", "evaluate", "toy_shapes", "x.json"),
        ("pretrain", "export", "absent.safetensors", "x.pkl", "--to", "detectron2"),
    ],
    ids=lambda words: words[1],
)
def test_a_missing_package_names_its_extra(tmp_path, words):
    """A command that needs pycocotools ends in one line."""
    done = run_without_pycocotools(tmp_path, *words)
    assert (done.returncode, done.stderr) == (
        2,
        "error: this needs the package pycocotools, which is not installed; pip install "
        "'rsa-toolkit[detect]'\n",
    )


@pytest.mark.process
def test_evaluation_needs_no_package_of_detection(tmp_path):
    """Nearest neighbours, and settings of a detector, without pycocotools."""
    network = ["backbone.arch=resnet18", "backbone.stem=cifar", "backbone.width=8"]
    images = ["data.num_train_images=40", "data.num_test_images=20"]
    words = ["eval", "knn", "--random-init", "--config", "data/digits", *network, *images]
    done = run_without_pycocotools(tmp_path, *words, "--out", "knn.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "knn.json").is_file()
    assert run_without_pycocotools(tmp_path, "detect", "config", "toy_shapes").returncode == 0


def test_the_program_of_detection_starts(capsys, monkeypatch):
    """Its script is not in its own package."""
    monkeypatch.setattr(sys, "argv", ["rsa-detect", "--version"])
    assert detect() == 0
    assert capsys.readouterr().out == f"rsa-detect {VERSION}\n"
