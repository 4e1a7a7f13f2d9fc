import pytest
import torch
from torch import Tensor

from rsa_eval.evaluators.shared import neighbours, selection
from rsa_eval.evaluators.shared.neighbours import (
    Neighbours,
    RowNorms,
    best,
    search,
    unit_rows,
)
from rsa_eval.features.share import ALONE, Share

CPU = torch.device("cpu")


@pytest.fixture(params=["reading", "without reading"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search as on a CPU, and as on a GPU."""
    if request.param == "without reading":
        for module in (neighbours, selection):
            monkeypatch.setattr(module, "reads_are_free", lambda device: False)


def _signs(count: int, width: int) -> Tensor:
    """Rows of ±1 of four, sixteen, … columns: unit rows whose products no summation rounds."""
    return torch.randint(0, 2, (count, width)).float() * 2 - 1


def _stable_sort(similarities: Tensor, k: int) -> Tensor:
    return similarities.sort(dim=1, descending=True, stable=True).indices[:, :k]


@pytest.mark.parametrize("rows_at_once", [1, 3, 12, 39, 40, 100])
@pytest.mark.parametrize("k", [1, 12, 40])
def test_ties_do_not_depend_on_chunks(rows_at_once: int, k: int) -> None:
    """Cosines of 0, ±0.5 and ±1 stand in many rows; the first ones are found."""
    bank, queries = _signs(40, 4), _signs(9, 4)
    norms = RowNorms(CPU)
    unit = unit_rows(queries, norms, CPU)
    found = search(unit, bank, k, rows_at_once, ALONE, None, norms).nearest_first()
    assert torch.equal(found.indices, _stable_sort(queries @ bank.T, k))
    expected = unit @ unit_rows(bank, norms, CPU).T
    assert torch.equal(found.similarities, expected.gather(1, found.indices))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_ties_do_not_depend_on_processes(count: int) -> None:
    """The lists of several shares, some smaller than k, make up the list of the whole."""
    bank, queries = _signs(20, 4), _signs(9, 4)
    norms = RowNorms(CPU)
    unit = unit_rows(queries, norms, CPU)
    parts = []
    for rank in range(count):
        rows = Share(rank, count).rows(len(bank))
        part = search(unit, bank[rows.start : rows.stop], 5, 2, ALONE, None, norms)
        parts.append(Neighbours(part.similarities, part.indices + rows.start))
    similarities, indices = (torch.cat(lists, dim=1) for lists in zip(*parts, strict=True))
    found = best(similarities, indices, 5).nearest_first()
    assert torch.equal(found.indices, _stable_sort(queries @ bank.T, 5))


@pytest.mark.parametrize("order", ["best last", "best first", "all equal"])
def test_banks_in_any_order(order: str) -> None:
    """The order of similarities across chunks does not matter."""
    angles = torch.linspace(0, 1.5, 50)
    if order == "best last":
        angles = angles.flip(0)
    elif order == "all equal":
        angles = torch.zeros(50)
    bank = torch.stack([angles.cos(), angles.sin()], dim=1)
    query = torch.tensor([[1.0, 0.0]])
    found = search(query, bank, 8, 9, ALONE, None, RowNorms(CPU)).nearest_first()
    expected = {"best last": range(49, 41, -1)}.get(order, range(8))
    assert found.indices.tolist() == [list(expected)]


def test_own_rows_are_not_found() -> None:
    """Queries that are rows 3 to 6 of the bank find any but themselves."""
    bank = torch.randn(10, 5)
    norms = RowNorms(CPU)
    found = search(unit_rows(bank[3:7], norms, CPU), bank, 9, 4, ALONE, 3, norms)
    for query, indices in enumerate(found.indices.tolist()):
        assert indices == [row for row in range(10) if row != query + 3]


def test_a_zero_row_is_nobodys_neighbour() -> None:
    """Its cosine is 0, not NaN."""
    bank = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    query = torch.tensor([[1.0, 0.0]])
    found = search(query, bank, 2, 2, ALONE, None, RowNorms(CPU))
    assert found.similarities[0].tolist() == pytest.approx([0.0, 0.5**0.5])
