from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as program
from benchmarks.gpu import command
from benchmarks.gpu.items import ITEMS
from benchmarks.gpu.outcome import Outcome, read_outcomes
from benchmarks.gpu.run import Job, item_command, outcomes_of
from benchmarks.measure import read_result

# Items that no other test runs at a rehearsal's sizes, or in the ways that a GPU has.
IN_PROCESS = ("card", "step", "epoch", "engines", "accuracy")


@pytest.mark.parametrize("name", IN_PROCESS)
def test_items_are_rehearsed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Each comes to a result; a goal missed on a CPU is none of its failures."""
    if name != "engines":  # detectron2 builds its own ResNets, of the usual width
        request.getfixturevalue("narrow_resnets")
    monkeypatch.delenv("RSA_DATA", raising=False)
    (item,) = (item for item in ITEMS if item.name == name)
    words = item_command(Job([item], "cpu", tmp_path, 900, None, [item]), item, 600.0)[3:]
    assert program.main(words) in (0, 1)
    result = read_result(tmp_path / name / f"{item.benchmark}-cpu.json")
    assert result is not None
    assert result.command[:4] == ["python", "-m", "benchmarks", item.benchmark]
    assert "--results" not in result.command
    assert result.seconds


@pytest.mark.process
def test_a_rehearsal_runs_from_end_to_end(tmp_path: Path, python) -> None:  # type: ignore[no-untyped-def]
    """Each item in its own process; nothing but the stated folder is written."""
    before = program.PAGE.read_bytes()
    words = ("-m", "benchmarks", "gpu", "--rehearse", "--only", "knn,card")
    done = python.run(*words, "--out", tmp_path, "--budget-minutes", 6, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("card: measured") < done.stdout.index("knn: measured")
    assert {outcome.state for outcome in outcomes_of(tmp_path).values()} == {"measured"}
    assert "| knn |" in (tmp_path / "table.md").read_text()
    assert program.PAGE.read_bytes() == before


def test_a_run_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one the rehearsal is named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert program.main(["gpu"]) == 2
    assert "error: torch sees no GPU; --rehearse runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "card,cart"], "no item 'cart'; expected some of card, gpu_tests"),
        (["--budget-minutes", "0"], "expected minutes above 0, found '0'"),
        (["--budget-minutes", "soon"], "expected minutes above 0, found 'soon'"),
    ],
)
def test_mistakes_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything runs."""
    assert program.main(["gpu", *words]) == 2
    assert message in capsys.readouterr().err


def test_images_are_found_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the stated folder, else below RSA_DATA, else nowhere; a stated folder must have them."""
    monkeypatch.setenv("RSA_DATA", str(tmp_path))
    assert command._data_root(None) is None
    batches = tmp_path / "cifar10" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    assert command._data_root(None) == command._data_root(batches.parent) == batches.parent
    with pytest.raises(command.UserError, match="has no folder cifar-10-batches-py"):
        command._data_root(tmp_path)


def test_results_are_kept_with_the_project_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every outcome; of a benchmark with its own settings also the result."""
    outcomes, results = tmp_path / "gpu", []
    monkeypatch.setattr(command, "GPU_RESULTS", outcomes)
    monkeypatch.setattr(command, "PAGE", tmp_path / "BENCHMARKS.md")
    monkeypatch.setattr(command, "write_result", results.append)
    words = ["card", "--results", str(tmp_path), "side=8", "copied_mib=1", "repeats=1"]
    assert program.main(words) == 0
    result = read_result(tmp_path / "card-cpu.json")
    for name in ("card", "step_compiled"):
        command.keep(Outcome(item=name, state="measured", result=result))
    assert set(read_outcomes(outcomes)) == {"card", "step_compiled"}
    assert results == [result]
    assert (tmp_path / "BENCHMARKS.md").is_file()
