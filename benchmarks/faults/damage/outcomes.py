"""Read damaged files of every kind that the toolkit reads back, and count the outcomes."""

from collections.abc import Iterator

from benchmarks.faults.damage.data import data_kinds
from benchmarks.faults.damage.detectors import detector_kinds
from benchmarks.faults.damage.evaluations import evaluation_kinds
from benchmarks.faults.damage.foreign import foreign_kinds
from benchmarks.faults.damage.runs import run_kinds
from benchmarks.faults.damage.trials import Kind, Outcomes, try_mutants


def all_kinds() -> list[Kind]:
    """Return every kind of file."""
    return [*run_kinds(), *data_kinds(), *evaluation_kinds(), *detector_kinds(), *foreign_kinds()]


def damage_outcomes(mutants_per_kind: int, seed: int, named: str = "") -> Iterator[Outcomes]:
    """Read mutants of every kind of file.

    Args:
        mutants_per_kind: Mutants of each.
        seed: Number of each kind's first mutant.
        named: Part of the names of the kinds to read; empty for all of them.

    Yields:
        The outcomes of one kind after another.
    """
    for kind in all_kinds():
        if named in kind.name:
            yield try_mutants(kind, mutants_per_kind, seed)
