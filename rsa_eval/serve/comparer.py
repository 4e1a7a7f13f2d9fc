"""Compare the models of tables in the background, as it takes seconds for many models."""

import threading
from collections.abc import Callable, Sequence

from rsa_eval.report.matrix import PairMatrix, build_matrix
from rsa_eval.report.tables import Table
from rsa_pretrain.plumbing.errors import UserError

PENDING = PairMatrix("", (), "the comparison is being computed")


class Comparer:
    """Keeps the comparison of each table, and computes those that are missing in a thread.

    Args:
        build: Compares the models of one table.
    """

    def __init__(self, build: Callable[[Table], PairMatrix | None] = build_matrix) -> None:
        self._build = build
        self._changed = threading.Condition()
        self._found: dict[str, PairMatrix | None] = {}
        self._waiting: list[tuple[str, Table]] = []
        self.num_found = 0
        """Comparisons computed so far."""
        threading.Thread(target=self._work, daemon=True, name="comparisons").start()

    def want(self, tables: Sequence[Table]) -> None:
        """Compute these tables' comparisons, in their order, and forget all others."""
        wanted = {_key(table): table for table in tables}
        with self._changed:
            self._found = {key: self._found[key] for key in wanted if key in self._found}
            self._waiting = [pair for pair in wanted.items() if pair[0] not in self._found]
            self._changed.notify()

    def matrix_of(self, table: Table) -> PairMatrix | None:
        """Return a table's comparison, or ``PENDING`` until it is computed."""
        with self._changed:
            return self._found.get(_key(table), PENDING)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                key, table = self._waiting[0]
            matrix = self._compare(table)
            with self._changed:
                if self._waiting and self._waiting[0][0] == key:
                    del self._waiting[0]
                self._found[key] = matrix
                self.num_found += 1

    def _compare(self, table: Table) -> PairMatrix | None:
        try:
            return self._build(table)
        except (UserError, OSError) as error:  # such as of answers deleted meanwhile
            return PairMatrix("", (), str(error))


def _key(table: Table) -> str:
    """Identify a table's models by what their comparison depends on."""
    return repr(
        [
            (row.name, row.detail, str(path), record.created, record.metrics, record.predictions)
            for row in table.rows
            for path, record in zip(row.group.paths, row.group.records, strict=True)
        ]
    )
