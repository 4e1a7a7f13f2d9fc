"""Test that damage of every kind is tried, and every forbidden outcome found."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults.damage import trials
from benchmarks.faults.damage.mutants import SWAPS, UNREADABLE, damaged
from benchmarks.faults.damage.outcomes import all_kinds, damage_outcomes
from benchmarks.faults.damage.trials import OTHER, REFUSED, SAME, Kind, try_mutants
from rsa_pretrain.plumbing.errors import UserError


def _write(folder: Path) -> Path:
    path = folder / "number.txt"
    path.write_text("7" * 100)
    return path


def _reverse(data: bytes, chance: random.Random) -> bytes:
    return b"8" + data


def _only_changed(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Refuse whatever stands in the file's place, so that changed bytes alone count."""

    def reader(path: Path) -> object:
        if not path.is_file() or not os.access(path, os.R_OK):
            raise UserError(f"cannot read '{path}': not a file")
        content = path.read_bytes()
        return read(path) if content.startswith(b"8") else content

    return reader


def _raise(path: Path) -> object:
    raise KeyError("layer")


def _mumble(path: Path) -> object:
    raise UserError("damaged")


def _refuse(path: Path) -> object:
    raise UserError(f"'{path}' is damaged: 8")


def _sleep(path: Path) -> object:
    time.sleep(30)
    return 7


def _die(path: Path) -> object:
    os._exit(3)


def _fill_memory(path: Path) -> object:
    return int(np.ones(2 * trials.ALLOWANCE, np.uint8)[-1])


OUTCOMES: dict[str, Callable[[Path], object]] = {
    REFUSED: _refuse,
    SAME: lambda path: path.read_bytes()[1:],
    OTHER: lambda path: 8,
    "another exception": _raise,
    "crash": _die,
    "too slow": _sleep,
    "too much memory": _fill_memory,
    "unclear refusal": _mumble,
}


@pytest.mark.parametrize(("outcome", "read"), OUTCOMES.items())
def test_each_outcome_is_told(
    monkeypatch: pytest.MonkeyPatch, outcome: str, read: Callable[[Path], object]
) -> None:
    """A mutant that is read, refused or breaks its reader is counted as just that."""
    monkeypatch.setattr(trials, "SECONDS_PER_MUTANT", 1)
    found = try_mutants(Kind("number", _write, _only_changed(read), _reverse), count=2, seed=2)
    assert found.counts == {outcome: 2}
    assert found.num_findings == len(found.findings) == (2 if outcome in trials.FINDINGS else 0)


def test_another_answer_needs_a_reason() -> None:
    """With a checksum it is a finding, without one a valid file."""
    kind = Kind("number", _write, _only_changed(lambda path: 8), _reverse, has_checksum=True)
    assert try_mutants(kind, count=2, seed=2).counts == {"another answer": 2}


def test_a_swapped_file_is_not_another_answer() -> None:
    """A reader that takes a folder, a link or a device for an absent file is found."""
    kind = Kind("number", _write, lambda path: path.is_file() and path.read_bytes(), _reverse)
    found = try_mutants(kind, count=150, seed=0)
    assert found.counts["another answer"] > 0
    assert found.counts["another answer"] + found.counts["another exception"] == found.num_findings


def test_the_file_is_put_back(tmp_path: Path) -> None:
    """Whatever stood in its place."""
    path, swaps = _write(tmp_path), set()
    content = path.read_bytes()
    for seed in range(1500):
        with damaged(path, content, _reverse, random.Random(seed)) as swap:
            swaps.add(swap)
        assert path.read_bytes() == content
    assert swaps == {"", UNREADABLE, *SWAPS}


@pytest.mark.process
def test_a_few_mutants_of_every_kind() -> None:
    """Each is refused in a line, or read right; the kinds are those of all parts."""
    assert len({kind.name for kind in all_kinds()}) == len(all_kinds()) > 50
    for found in damage_outcomes(mutants_per_kind=4, seed=77):
        assert found.findings == []
        assert found.num_mutants >= 1
