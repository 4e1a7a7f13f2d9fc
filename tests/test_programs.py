import subprocess
import sys
from pathlib import Path

import pytest

import detection.__main__
import rsa_eval.__main__
import rsa_pretrain.__main__
from rsa_eval.evaluators import EVALUATORS

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    main.PROGRAM.name: main.PROGRAM
    for main in (rsa_pretrain.__main__, rsa_eval.__main__, detection.__main__)
}
COMMANDS = [(prog, one.name) for prog, program in PROGRAMS.items() for one in program.commands]
HEAVY = {"torch", "torchvision", "sklearn", "matplotlib", "detectron2"}
TRAIN = ["detection", "train", "--random-init"]


def run_and_list_imports(*words):
    """Run ``python WORDS`` in the checkout; return what it ended as and the modules it imported."""
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    lines = done.stderr.splitlines(keepends=True)
    times = [line for line in lines if line.startswith("import time:")]
    done.stderr = "".join(line for line in lines if line not in times)
    return done, {line.rpartition("|")[2].strip() for line in times}


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["rsa_pretrain", "--help"], None),
        (["rsa_eval", "--help"], None),
        (["detection", "--help"], None),
        (["rsa_pretrain", "flee"], "unknown command 'flee'"),
        (["rsa_pretrain", "run", "absent.yaml"], "cannot read config 'absent.yaml'"),
        (["rsa_pretrain", "run", "digits/rsa", "seeed=1"], "the nearest valid key is 'seed'"),
        (["rsa_pretrain", "preview", "absent", "x.png"], "cannot read config 'absent'"),
        (["rsa_pretrain", "data-check", "digits/rsa", "seeed=1"], "unknown key 'seeed'"),
        (["rsa_pretrain", "sweep", "digits/rsa", "seeed=1,2"], "the nearest valid key is 'seed'"),
        (["rsa_pretrain", "sweep", "digits/rsa", "--evaluator", "k"], "--evaluator 'k' should be"),
        (["rsa_pretrain", "reproduce"], "'reproduce' is now 'rsa-eval reproduce'"),
        (["rsa_eval", "reproduce", "table9"], "there is no row 'table9'"),
        (["rsa_eval", "reproduce", "table8", "seed=1"], "'seed' differs from trial to trial"),
        (["rsa_eval", "suite", "--suite", "digits", "colour=red"], "unknown key 'colour'"),
        (["rsa_eval", "label-curve", "--random-init", "--draws", "0"], "a whole number above 0"),
        (["rsa_eval", "label-curve", "--random-init"], "give a data config"),
        ([*TRAIN, "absent.yaml"], "cannot read config 'absent.yaml'"),
        ([*TRAIN, "toy_shapes", "solver.base_rl=1"], "valid key is 'solver.base_lr'"),
        (["detection", "data-check", "absent.yaml"], "cannot read config 'absent.yaml'"),
        (["detection", "export-config", "toy_shapes", "x", "seeed=1"], "unknown key 'seeed'"),
    ],
)
def test_help_and_mistakes_are_answered_without_torch(words, error):
    """A list of commands, an unknown key and a missing config need no library that is slow."""
    done, imported = run_and_list_imports("-m", *words)
    assert HEAVY.isdisjoint(imported)
    if error is None:
        assert (done.returncode, done.stderr) == (0, "")
        listed = PROGRAMS[done.stdout.split()[1]].commands
        assert all(f"\n    {command.name}" in done.stdout for command in listed)
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert error in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.process
def test_the_programs_are_listed_without_torch():
    """Nor any other library that the programs themselves start without."""
    done, imported = run_and_list_imports("-c", "from rsa_pretrain.toolkit import main; main([])")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n{name}  {one.description}\n" in done.stdout for name, one in PROGRAMS.items())
    assert imported.isdisjoint({*HEAVY, "numpy", "PIL", "pydantic"})


@pytest.mark.process
@pytest.mark.parametrize("package", ["rsa_pretrain", "rsa_eval", "detection"])
def test_command_and_data_modules_import_without_torch(package):
    """A command imports its training and image libraries only when it works."""
    commands = {f"{package}.commands.{path.stem}" for path in ROOT.glob(f"{package}/commands/*.py")}
    done, imported = run_and_list_imports(
        "-c", f"import rsa_pretrain.data.open_images, {', '.join(commands)}"
    )
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(imported)
    assert package == "detection" or {"numpy", "PIL"}.isdisjoint(imported)


@pytest.mark.parametrize(("prog", "name"), COMMANDS)
def test_every_command_has_help(prog, name, capsys):
    """Each line of a program's table leads to a parser of that name."""
    with pytest.raises(SystemExit, match="0"):
        PROGRAMS[prog].run([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {prog} {name} ")
    assert "example" in text or prog != "rsa-eval"


def test_help_lists_config_keys(capsys):
    """A command that takes ``section.key=value`` lists the keys with defaults."""
    with pytest.raises(SystemExit, match="0"):
        PROGRAMS["rsa-detect"].run(["train", "--help"])
    assert "solver.base_lr  (default 0.02)" in capsys.readouterr().out


def test_every_evaluator_is_a_command():
    """One that is added to the evaluators is added to the program's table."""
    assert {("rsa-eval", name) for name in EVALUATORS} <= set(COMMANDS)
