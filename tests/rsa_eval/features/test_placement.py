import pytest
import torch

from rsa_eval.features.placement import brought_home, home_of, on_cpu

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_a_quarter_of_the_free_memory_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than that stays on the CPU; without a GPU everything does."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 10**6))
    assert home_of(1000, GPU) == GPU
    assert home_of(1001, GPU) == CPU
    assert home_of(1, CPU) == CPU


def test_nothing_moves_on_a_cpu() -> None:
    """The tensors are the ones that came, each before the next is asked for."""
    tensors = [torch.randn(2), torch.randn(3)]
    assert brought_home(tensors[0], CPU) is tensors[0]
    asked = iter(tensors)
    arriving = on_cpu(asked)
    assert next(arriving) is tensors[0]
    assert next(asked) is tensors[1]


@pytest.mark.gpu
def test_tensors_arrive_from_a_gpu_in_their_order() -> None:
    """Complete, one batch after the next was launched, the last one too."""
    sent = [torch.randn(1000, 100) for _ in range(5)]
    launched = []

    def launch():
        for tensor in sent:
            launched.append(len(launched))
            yield tensor.cuda() * 2

    arrived = []
    for tensor in on_cpu(launch()):
        assert tensor.device == CPU
        assert len(launched) == min(len(arrived) + 2, 5)
        arrived.append(tensor.clone())
    assert all(torch.equal(a, 2 * b) for a, b in zip(arrived, sent, strict=True))
