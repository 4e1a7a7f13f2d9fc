import math

import pytest
import torch

from rsa_eval.evaluators.shared import memory_plan
from rsa_eval.evaluators.shared.memory_plan import budget_on, plan_chunks
from rsa_eval.features.share import ALONE
from rsa_pretrain.plumbing.memory import FreeMemory

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
GIB = 2**30

# ImageNet's features of a ResNet-50, and the votes of the default settings.
_QUERIES, _WIDTH, _K, _CLASSES = 50_000, 2048, 200, 1000


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("budget", [16, 64, 512])
@pytest.mark.parametrize(("width", "k", "num_classes"), [(64, 1, 2), (2048, 200, 1000)])
def test_chunks_fit_the_budget(
    budget: int, width: int, k: int, num_classes: int, device: torch.device
) -> None:
    """The largest tensors of a step are below the budget, and use at least half of it."""
    plan = plan_chunks(budget, device, 10**6, width, k, num_classes)
    similarities = plan.num_queries * plan.num_rows * (5 if device == CPU else 9)
    copies = 4 * width * (plan.num_queries + plan.num_rows)
    assert budget * 2**20 / 2 < similarities + copies < budget * 2**20


def test_a_chunk_can_be_counted_in_32_bits() -> None:
    """However large the budget, there are fewer than 2**31 similarities, nearly as many."""
    plan = plan_chunks(10**6, CPU, 10**5, 64, 1, 2)
    assert 2**30 < plan.num_queries * plan.num_rows < 2**31


def test_few_queries_leave_the_memory_to_the_bank() -> None:
    """With ten queries the chunks of the bank are larger than with a million."""
    few, many = (plan_chunks(64, CPU, count, 512, 20, 10) for count in (10, 10**6))
    assert few.num_queries == 10
    assert few.num_rows > many.num_rows


@pytest.mark.parametrize(
    ("free_gib", "budget_mib", "num_passes"), [(139, 35_584, 1), (22, 5632, 2), (1, 512, 17)]
)
def test_a_gpu_gives_a_quarter_of_its_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_gib: int, budget_mib: int, num_passes: int
) -> None:
    """ImageNet's bank is then read once, or twice, instead of 17 times; never below 512 MiB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gib * GIB, 141 * GIB))
    assert budget_on(GPU, None, ALONE) == budget_mib
    plan = plan_chunks(budget_mib, GPU, _QUERIES, _WIDTH, _K, _CLASSES)
    assert math.ceil(_QUERIES / plan.num_queries) == num_passes
    assert plan.num_queries * plan.num_rows * 9 < budget_mib * 2**20


@pytest.mark.parametrize(("free_mib", "budget_mib"), [(9000, 512), (400, 100), (20, 16)])
def test_a_cpu_with_little_memory_takes_a_quarter_of_it(
    monkeypatch: pytest.MonkeyPatch, free_mib: int, budget_mib: int
) -> None:
    """And no less than what may be set."""
    free = FreeMemory(free_mib * 2**20, "test")
    monkeypatch.setattr(memory_plan, "available_memory", lambda: free)
    assert budget_on(CPU, None, ALONE) == budget_mib
    assert budget_on(CPU, 99, ALONE) == 99


def test_a_cpu_takes_half_a_gibibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    """And reads ImageNet's bank 17 times; a budget that is set counts on any device."""
    monkeypatch.setattr(memory_plan, "available_memory", lambda: None)
    assert budget_on(CPU, None, ALONE) == 512
    assert budget_on(CPU, 99, ALONE) == budget_on(GPU, 99, ALONE) == 99
    plan = plan_chunks(512, CPU, _QUERIES, _WIDTH, _K, _CLASSES)
    assert math.ceil(_QUERIES / plan.num_queries) == 17
