from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.records.groups import group_records
from rsa_eval.records.record import Record, write_record
from rsa_eval.report.inputs import collect
from rsa_eval.report.tables import build_tables
from rsa_pretrain.plumbing.atomic_files import TEMPORARY_PREFIX

WriteLog = Callable[..., None]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("results", ["plain", "study/cifar10/rsa/seed-0", "study/cifar10/rsa/seed-1"]),
        ("results/study/cifar10/rsa", ["seed-0", "seed-1"]),
        ("results/study/cifar10/rsa/seed-1", ["seed-1"]),
        ("results/study/cifar10/rsa/seed-1/metrics.jsonl", ["seed-1"]),
    ],
)
def test_a_trial_is_called_by_its_path(
    tmp_path: Path, write_log: WriteLog, given: str, names: list[str]
) -> None:
    """Trials are named by their path, because many runs are called seed-0."""
    for name in ("plain", "study/cifar10/rsa/seed-0", "study/cifar10/rsa/seed-1"):
        write_log(tmp_path / "results" / name)
    expected = [f"rsa/{name}" if name.startswith("seed") else name for name in names]
    assert [run.name for run in collect([tmp_path / given]).runs] == expected


def test_rows_name_the_folder_of_their_trials(
    tmp_path: Path, make_result: Callable[..., Record]
) -> None:
    """Random weights of two seeds in one folder are a row that names it."""
    for seed in (0, 1):
        record = make_result(random_init=True, seeds=[seed])
        write_record(record, tmp_path / f"study/random/seed-{seed}/records/linear.json")
    write_record(make_result(), tmp_path / "single/records/linear.json")
    (table,) = build_tables(group_records(collect([tmp_path]).records))
    single, random = table.rows
    assert random.detail.endswith(f" · {tmp_path}/study/random")
    assert str(tmp_path) not in single.detail


def test_a_record_being_written_is_none_yet(
    tmp_path: Path, make_result: Callable[..., Record]
) -> None:
    """Its temporary file, which a killed process leaves behind, is not taken for a damaged one."""
    write_record(make_result(), tmp_path / "run/records/linear.json")
    for folder in (tmp_path, tmp_path / "run/records"):
        (folder / f"{TEMPORARY_PREFIX}x.json").write_text("{")
    inputs = collect([tmp_path])
    assert [path.name for path, _ in inputs.records] == ["linear.json"]
    assert inputs.unreadable == []
