"""Comparisons of models are computed in a thread."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.records.groups import group_records
from rsa_eval.records.record import Record
from rsa_eval.report.matrix import PairMatrix
from rsa_eval.report.tables import Table, build_tables
from rsa_eval.serve.comparer import PENDING, Comparer
from rsa_pretrain.plumbing.errors import UserError

MakeResult = Callable[..., Record]


@pytest.fixture
def tables(make_result: MakeResult) -> Callable[..., list[Table]]:
    """A function that makes a table for each data set, with a record of an accuracy each."""

    def make(**values: float) -> list[Table]:
        found = [
            (Path(f"{name}.json"), make_result(data_set=name, values={"top1": value}))
            for name, value in values.items()
        ]
        return build_tables(group_records(found))

    return make


def _settled(comparer: Comparer, table: Table) -> PairMatrix | None:
    end = time.monotonic() + 10
    while (found := comparer.matrix_of(table)) is PENDING and time.monotonic() < end:
        time.sleep(0.01)
    return found


def test_a_table_is_compared_once(tables: Callable[..., list[Table]]) -> None:
    """Pending until it is; again only if its records have changed."""
    asked: list[str] = []
    may_work = threading.Event()

    def build(table: Table) -> PairMatrix:
        assert may_work.wait(10)
        asked.append(table.data_set)
        return PairMatrix(table.data_set, (), "")

    comparer = Comparer(build)
    both = tables(cifar10=50.0, cifar100=60.0)
    comparer.want(both)
    assert [comparer.matrix_of(table) for table in both] == [PENDING, PENDING]
    may_work.set()
    found = [_settled(comparer, table) for table in both]
    assert [matrix and matrix.metric for matrix in found] == ["CIFAR-10", "CIFAR-100"]
    changed = tables(cifar10=50.0, cifar100=61.0)
    comparer.want(changed)
    assert comparer.matrix_of(changed[0]) is found[0]
    assert _settled(comparer, changed[1]) not in (PENDING, None)
    assert asked == ["CIFAR-10", "CIFAR-100", "CIFAR-100"]
    assert comparer.num_found == 3


@pytest.mark.parametrize(
    "error", [UserError("the answers are gone"), OSError("the answers are gone")]
)
def test_answers_that_vanish_are_a_reason(
    tables: Callable[..., list[Table]], error: Exception
) -> None:
    """The thread lives on and compares the next table."""

    def build(table: Table) -> PairMatrix | None:
        if table.data_set == "CIFAR-10":
            raise error
        return None

    comparer = Comparer(build)
    both = tables(cifar10=50.0, cifar100=60.0)
    comparer.want(both)
    assert _settled(comparer, both[1]) is None
    assert comparer.matrix_of(both[0]) == PairMatrix("", (), "the answers are gone")
