import pytest
import torch
from torch import Tensor

from rsa_eval.evaluators.shared.neighbours import (
    Neighbours,
    best,
    largest,
    plan_chunks,
    search,
    unit_rows,
)
from rsa_eval.features.share import ALONE, Share

CPU = torch.device("cpu")


def _signs(count: int, width: int) -> Tensor:
    """Rows of ±1 of four, sixteen, … columns: unit rows whose products no summation rounds."""
    return torch.randint(0, 2, (count, width)).float() * 2 - 1


def _stable_sort(similarities: Tensor, k: int) -> Tensor:
    return similarities.sort(dim=1, descending=True, stable=True).indices[:, :k]


def test_of_equal_values_the_first_are_chosen() -> None:
    """Of five equal values the first three are taken, besides the larger one."""
    values = torch.tensor([[0.5, 0.5, 0.1, 0.5, 0.9, 0.5, 0.5]])
    assert largest(values, 4).tolist() == [[0, 1, 3, 4]]


def test_many_ties_equal_a_stable_sort() -> None:
    """On coarse random numbers the choice is that of a stable descending sort of whole rows."""
    values = torch.randint(0, 5, (40, 90)).float()
    assert torch.equal(largest(values, 13), _stable_sort(values, 13).sort(dim=1).values)
    assert torch.equal(largest(values, 90), torch.arange(90).expand(40, 90))


@pytest.mark.parametrize("rows_at_once", [1, 3, 12, 39, 40, 100])
@pytest.mark.parametrize("k", [1, 12, 40])
def test_ties_do_not_depend_on_chunks(rows_at_once: int, k: int) -> None:
    """Cosines of 0, ±0.5 and ±1 stand in many rows; the first ones are found."""
    bank, queries = _signs(40, 4), _signs(9, 4)
    unit = unit_rows(queries, CPU)
    found = search(unit, bank, k, rows_at_once, ALONE, None).nearest_first()
    assert torch.equal(found.indices, _stable_sort(queries @ bank.T, k))
    assert torch.equal(found.similarities, (unit @ unit_rows(bank, CPU).T).gather(1, found.indices))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_ties_do_not_depend_on_processes(count: int) -> None:
    """The lists of several shares, some smaller than k, make up the list of the whole."""
    bank, queries = _signs(20, 4), _signs(9, 4)
    unit = unit_rows(queries, CPU)
    parts = []
    for rank in range(count):
        rows = Share(rank, count).rows(len(bank))
        part = search(unit, bank[rows.start : rows.stop], 5, 2, ALONE, None)
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
    found = search(torch.tensor([[1.0, 0.0]]), bank, 8, 9, ALONE, None).nearest_first()
    expected = {"best last": range(49, 41, -1)}.get(order, range(8))
    assert found.indices.tolist() == [list(expected)]


def test_own_rows_are_not_found() -> None:
    """Queries that are rows 3 to 6 of the bank find any but themselves."""
    bank = torch.randn(10, 5)
    found = search(unit_rows(bank[3:7], CPU), bank, 9, 4, ALONE, 3)
    for query, indices in enumerate(found.indices.tolist()):
        assert indices == [row for row in range(10) if row != query + 3]


def test_a_zero_row_is_nobodys_neighbour() -> None:
    """Its cosine is 0, not NaN."""
    bank = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    found = search(unit_rows(torch.tensor([[1.0, 0.0]]), CPU), bank, 2, 2, ALONE, None)
    assert found.similarities[0].tolist() == pytest.approx([0.0, 0.5**0.5])


@pytest.mark.parametrize("budget", [16, 64, 512])
@pytest.mark.parametrize(("width", "k", "num_classes"), [(64, 1, 2), (2048, 200, 1000)])
def test_chunks_fit_the_budget(budget: int, width: int, k: int, num_classes: int) -> None:
    """The largest tensors of a step are below the budget, and use at least half of it."""
    plan = plan_chunks(budget, 10**6, width, k, num_classes)
    similarities = plan.num_queries * plan.num_rows * 5
    copies = 4 * width * (plan.num_queries + plan.num_rows)
    assert budget * 2**20 / 2 < similarities + copies < budget * 2**20


def test_a_chunk_can_be_counted_in_32_bits() -> None:
    """However large the budget, there are fewer than 2**31 similarities, nearly as many."""
    plan = plan_chunks(10**6, 10**5, 64, 1, 2)
    assert 2**30 < plan.num_queries * plan.num_rows < 2**31


def test_few_queries_leave_the_memory_to_the_bank() -> None:
    """With ten queries the chunks of the bank are larger than with a million."""
    few, many = (plan_chunks(64, count, 512, 20, 10) for count in (10, 10**6))
    assert few.num_queries == 10
    assert few.num_rows > many.num_rows
