"""Inputs are collected again and again; unchanged files are not read again."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.records.record import Record, write_record
from rsa_eval.report.inputs import collect
from rsa_eval.serve import watch as watch_module
from rsa_eval.serve.watch import Watch
from rsa_pretrain.plumbing.errors import UserError

MakeResult = Callable[..., Record]
WriteLog = Callable[..., None]


@pytest.fixture
def tree(tmp_path: Path, make_result: MakeResult, write_log: WriteLog) -> Path:
    """Two runs, of which one is evaluated."""
    for name in ("a", "b"):
        write_log(tmp_path / f"runs/{name}", f"cifar10/{'rsa' if name == 'a' else 'byol'}")
    write_record(make_result(), tmp_path / "runs/a/records/linear.json")
    return tmp_path / "runs"


def test_it_collects_what_a_report_does(tree: Path) -> None:
    """Records and runs are the same, in the same order."""
    (tree / "a/records/bad.json").write_text("{")
    assert Watch([tree, tree / "a"]).collect() == collect([tree, tree / "a"])


def test_only_changed_files_are_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose log grew keeps its parsed settings, and the other is the same object."""
    reads: list[str] = []
    for name in ("read_record", "describe_run"):
        function = getattr(watch_module, name)
        monkeypatch.setattr(
            watch_module, name, lambda *given, f=function: reads.append(given[0].name) or f(*given)
        )
    watch = Watch([tree])
    first = watch.collect()
    assert sorted(reads) == ["linear.json", "metrics.jsonl", "metrics.jsonl"]
    reads.clear()
    assert watch.collect() == first
    with (tree / "a/metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "loss": 0.5}\n{"step": 1')
    grown, other = watch.collect().runs
    assert reads == []
    assert grown.metrics[-1] == {"step": 99, "loss": 0.5}
    assert grown.pretraining is first.runs[0].pretraining
    assert other is first.runs[1]
    os.utime(tree / "a/records/linear.json", ns=(1, 1))
    (tree / "b/config.yaml").write_text("seed: 1\n")
    changed = watch.collect()
    assert sorted(reads) == ["linear.json", "metrics.jsonl"]
    assert changed.runs[1].pretraining is None


def test_damage_is_described_until_it_is_mended(tree: Path, make_result: MakeResult) -> None:
    """A damaged record or log is left out, and comes back once it is whole."""
    (tree / "a/records/linear.json").write_text("{")
    (tree / "b/metrics.jsonl").write_text("{}\n{}\n")
    watch = Watch([tree])
    inputs = watch.collect()
    assert (len(inputs.records), len(inputs.runs)) == (0, 1)
    assert len(inputs.unreadable) == 2
    write_record(make_result(), tree / "a/records/linear.json")
    (tree / "b/metrics.jsonl").write_text('{"step": 1}\n')
    inputs = watch.collect()
    assert (len(inputs.records), len(inputs.runs)) == (1, 2)
    assert inputs.unreadable == []


def test_what_vanishes_is_forgotten_in_silence(tree: Path) -> None:
    """A record, a run and a whole folder may be deleted meanwhile, and appear again."""
    watch = Watch([tree])
    watch.collect()
    (tree / "a/records/linear.json").unlink()
    (tree / "b/metrics.jsonl").unlink()
    inputs = watch.collect()
    assert (len(inputs.records), len(inputs.runs), inputs.unreadable) == (0, 1, [])
    tree.rename(tree.with_name("elsewhere"))
    assert watch.collect().runs == []
    assert watch.stamps() == {}
    tree.with_name("elsewhere").rename(tree)
    assert len(watch.collect().runs) == 1


def test_a_file_deleted_between_listing_and_reading(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for a damaged one."""
    files = watch_module.logs_and_records(tree)
    monkeypatch.setattr(watch_module, "logs_and_records", lambda path: files)
    (tree / "a/records/linear.json").unlink()
    inputs = Watch([tree]).collect()
    assert (inputs.records, inputs.unreadable) == ([], [])


def test_an_empty_folder_may_be_filled_later(tmp_path: Path, write_log: WriteLog) -> None:
    """Only a path that is not there is a mistake."""
    watch = Watch([tmp_path])
    assert watch.collect().runs == []
    write_log(tmp_path / "run", lines=[json.loads('{"step": 1}')])
    assert [run.name for run in watch.collect().runs] == ["run"]
    with pytest.raises(UserError, match=r"absent' does not exist; expected a run folder"):
        Watch([tmp_path, tmp_path / "absent"])
