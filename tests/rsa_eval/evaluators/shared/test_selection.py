from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rsa_eval.evaluators.shared import selection
from rsa_eval.evaluators.shared.selection import largest


@pytest.fixture(params=[True, False], ids=["reading", "without reading"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Select as on a CPU, and as on a GPU."""
    monkeypatch.setattr(selection, "reads_are_free", lambda device: request.param)


def _first_largest(values: Tensor, k: int) -> Tensor:
    chosen = values.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return chosen.sort(dim=1).values


def test_of_equal_values_the_first_are_chosen() -> None:
    """Of five equal values the first three are taken, besides the larger one."""
    values = torch.tensor([[0.5, 0.5, 0.1, 0.5, 0.9, 0.5, 0.5]])
    assert largest(values, 4).tolist() == [[0, 1, 3, 4]]


@pytest.mark.parametrize("k", [1, 13, 89, 90])
@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randint(0, 5, (40, 90)).float(),
        lambda: torch.zeros(40, 90),
        lambda: torch.randn(40, 90),
        lambda: torch.randn(40, 90).masked_fill_(torch.rand(40, 90) < 0.7, -torch.inf),
    ],
    ids=["coarse", "equal", "distinct", "mostly excluded"],
)
def test_many_ties_equal_a_stable_sort(k: int, draw: Callable[[], Tensor]) -> None:
    """The choice is that of a stable descending sort of whole rows."""
    values = draw()
    assert torch.equal(largest(values, k), _first_largest(values, k))
