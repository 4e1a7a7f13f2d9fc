import errno
import multiprocessing
import os
import threading
import time

import pytest
import torch
import yaml
from PIL import Image

from rsa_pretrain.__main__ import main
from rsa_pretrain.data.loader import make_loader
from rsa_pretrain.plumbing.command_line import run_command
from rsa_pretrain.plumbing.errors import UserError

pytestmark = pytest.mark.usefixtures("narrow_resnets")


@pytest.fixture
def run_file(tiny_tree, tmp_path):
    """Path of the tiny run's YAML."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_tree))
    return path


def test_run_trains_and_names_its_result(run_file, tmp_path, capsys):
    """The command ends with the backbone's path; a repeat needs --resume and then does nothing."""
    argv = ["run", str(run_file), "training.epochs=1", "--resume", "seed=2"]
    assert main(argv) == 0
    backbone = tmp_path / "run" / "backbone.safetensors"
    assert capsys.readouterr().out == f"backbone: {backbone}\n"
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (written["seed"], written["training"]["epochs"]) == (2, 1)
    before = backbone.stat().st_mtime_ns
    assert main(argv) == 0
    assert "already finished" in capsys.readouterr().out
    assert backbone.stat().st_mtime_ns == before
    assert main([word for word in argv if word != "--resume"]) == 2
    assert "contains a finished run" in capsys.readouterr().err


@pytest.mark.parametrize("views", ["pillow", "batched"])
def test_preview_draws_a_picture(run_file, tmp_path, views):
    """The grid is a PNG of five columns, taller with more rows, the same for the same seed."""
    sizes = []
    for rows in (2, 4):
        path = tmp_path / f"{rows}.png"
        argv = ["preview", str(run_file), str(path), f"views.implementation={views}"]
        assert main([*argv, "--num-images", str(rows)]) == 0
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            sizes.append(picture.size)
    assert sizes[0][0] == sizes[1][0]
    assert sizes[0][1] < sizes[1][1]
    again = tmp_path / "again.png"
    assert main([*argv[:2], str(again), argv[3], "--num-images", "4"]) == 0
    assert again.read_bytes() == (tmp_path / "4.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command given; expected one of run, sweep, "),
        (["fly"], "unknown command 'fly'; expected one of run, sweep, "),
        (["inspekt"], "unknown command 'inspekt'; the nearest is 'inspect'; expected one of run, "),
        (["run"], "required: CONFIG"),
        (["run", "missing.yaml"], "cannot read config 'missing.yaml': no such file"),
        (["run", "FILE", "--resum"], "unrecognised argument: --resum"),
        (["run", "FILE", "stray"], "'stray' is not of the form"),
        (["run", "FILE", "training.epoch=1"], "nearest valid key is 'training.epochs'"),
        (["run", "FILE", "optimizer.lrr=1"], "nearest valid key is 'optimizer.base_lr'"),
        (
            ["run", "FILE", "output_dir=FILE/x"],
            "is a file where a folder is to be; choose another place",
        ),
        (
            ["preview", "FILE", "FILE/v.png"],
            "is a file where a folder is to be; choose another place",
        ),
        (["run", "FILE", "data.name=cifar10", "data.root=nowhere"], "pretrain download cifar10"),
        (["run", "FILE", "data.name=imagefolder", "data.root=nowhere"], "is not a folder"),
        (["run", "FILE", "training.global_batch_size=99"], "more than the 32"),
        (["run", "FILE", "output_dir=/proc/nowhere"], "/proc/nowhere': No such file"),
        (["preview", "FILE", "out.jpg"], "should end in .png"),
        (["preview", "FILE", "x/train/v.png", "data.name=imagefolder", "data.root=x"], "elsewhere"),
        (
            ["run", "FILE", "output_dir=x/train", "data.name=imagefolder", "data.root=x"],
            "elsewhere",
        ),
        (
            ["preview", "FILE", "out.png", "--num-images", "0"],
            "expected a whole number above 0, found '0'",
        ),
    ],
)
def test_mistakes_are_one_error_line(run_file, capsys, words, message):
    """Every mistake exits with 2 and exactly one line that begins with 'error:'."""
    argv = [word.replace("FILE", str(run_file)) for word in words]
    assert main(argv) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize(
    ("missing", "inspected"),
    [
        ((), "backbone.safetensors"),
        (("backbone.safetensors",), "checkpoints/step-00000004/model.safetensors"),
        (
            ("backbone.safetensors", "checkpoints/last"),
            "checkpoints/step-00000004/model.safetensors",
        ),
    ],
)
def test_inspect_looks_at_a_runs_weights(run_file, tmp_path, capsys, missing, inspected):
    """Of a run folder it is the backbone, and of an unfinished run its last checkpoint."""
    assert main(["run", str(run_file), "training.epochs=1"]) == 0
    for name in missing:
        (tmp_path / "run" / name).unlink()
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"file      {tmp_path / 'run' / inspected}\n")
    assert "layout    this toolkit's" in shown


def test_inspect_says_what_a_folder_lacks(tmp_path, capsys):
    """A folder without weights is not a run folder."""
    assert main(["inspect", str(tmp_path)]) == 2
    assert "expected a run folder, a checkpoint folder or a file" in capsys.readouterr().err


class _Endless(torch.utils.data.Dataset):
    """Samples without end, one of them each second at most."""

    def __getitem__(self, key):
        time.sleep(key)
        return key


def test_command_leaves_no_process_behind():
    """Loader processes that ignore signals and are in the midst of something end with it."""
    loaders = []

    def command():
        loaders.append(iter(make_loader(_Endless(), [[0], [600]], 2, torch.device("cpu"))))
        next(loaders[0])
        raise UserError("enough")

    assert run_command(command) == 2
    assert multiprocessing.active_children() == []


def test_death_of_a_loader_process_is_one_error(capsys):
    """Whenever torch notices it, in the midst of a step too; other errors stay as they are."""
    message = "DataLoader worker (pid 7) is killed by signal: Killed. "

    def fail(text):
        raise RuntimeError(text)

    assert run_command(lambda: fail(message)) == 2
    assert capsys.readouterr().err.startswith("error: a loader process ended (DataLoader worker")
    with pytest.raises(RuntimeError, match="shapes disagree"):
        run_command(lambda: fail("shapes disagree"))


def test_a_limit_of_threads_or_processes_is_one_error(capsys):
    """It says which limits to raise, for Python's threads as for fork."""
    before = threading.stack_size(2**46)  # more than any address space
    try:
        assert run_command(threading.Thread(target=int).start) == 2
    finally:
        threading.stack_size(before)
    assert capsys.readouterr().err.startswith("error: the system starts no more processes or")

    def fork():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    assert run_command(fork) == 2
    assert "raise ulimit -u" in capsys.readouterr().err


def test_a_missing_compiler_is_one_error(capsys):
    """In the words of torch.compile, which wraps it in other errors."""
    from torch._inductor.exc import InvalidCxxCompiler

    def compile_network():
        raise RuntimeError(f"InvalidCxxCompiler: {InvalidCxxCompiler()}")

    assert run_command(compile_network) == 2
    assert capsys.readouterr().err.startswith("error: training.compile needs a C++ compiler")
