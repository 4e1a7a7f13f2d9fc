"""Let benchmarks measure memory in the test's own process."""

import pickle
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

import pytest

from benchmarks import measure


class _SameProcess:
    """Stands in for a pool of new processes; what they get is pickled all the same."""

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """Run at once."""
        future: Future[Any] = Future()
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))
        future.set_result(function(*arguments))
        return future


@pytest.fixture
def no_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new process imports torch for seconds; a peak in this one means nothing."""
    monkeypatch.setattr(measure, "ProcessPoolExecutor", lambda *_: nullcontext(_SameProcess()))
