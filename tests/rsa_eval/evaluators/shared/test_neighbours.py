import pytest
import torch
from host_reads import HostReads
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from rsa_eval.evaluators.shared import neighbours, selection
from rsa_eval.evaluators.shared.memory_plan import ChunkPlan
from rsa_eval.evaluators.shared.neighbours import (
    Neighbours,
    RowNorms,
    best,
    nearest_rows,
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


GPU_LIKE = "without reading"


@pytest.mark.parametrize("plan", [ChunkPlan(40, 60), ChunkPlan(7, 9), ChunkPlan(1, 1)])
def test_the_number_of_reads_does_not_grow_with_the_chunks(
    request: pytest.FixtureRequest, plan: ChunkPlan
) -> None:
    """On a GPU one, of whether all rows were finite; reading for each chunk is for CPUs."""
    bank, queries = _signs(60, 4), _signs(40, 4)
    with HostReads() as reads:
        chunks = list(nearest_rows(bank, queries, 5, plan, CPU, ALONE))
    assert len(chunks) == -(-40 // plan.num_queries)
    if GPU_LIKE in request.node.name:
        assert reads.count == 1
    else:
        assert reads.count > len(chunks)


def test_the_search_runs_on_one_device() -> None:
    """Tensors of a GPU that are not computed tell: none meets one of the CPU, none is read."""
    device = torch.device("cuda")
    with FakeTensorMode():
        bank, queries = (torch.empty(count, 12, device=device) for count in (60, 40))
        found = nearest_rows(bank, queries, 5, ChunkPlan(7, 9), device, ALONE)
        chunks = [next(found)[1] for _ in range(6)]
        with pytest.raises(DataDependentOutputException):
            next(found)
    assert {nearest.indices.device.type for nearest in chunks} == {"cuda"}
