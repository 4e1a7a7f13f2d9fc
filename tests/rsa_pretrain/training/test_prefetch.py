import pytest
import torch

from rsa_pretrain.training.prefetch import prefetched

CPU = torch.device("cpu")


def numbered(count, closed=None):
    """Batches in host memory, each its number; notes when it is closed."""
    try:
        yield from range(count)
    finally:
        if closed is not None:
            closed.append(True)


def test_on_a_cpu_batches_are_prepared_when_asked_for():
    """In their order, none ahead of time."""
    prepared = []

    def prepare(number):
        prepared.append(number)
        return [torch.tensor(number)], torch.tensor(-number)

    batches = prefetched(numbered(3), prepare, CPU)
    assert prepared == []
    for number, (views, labels) in enumerate(batches):
        assert prepared == list(range(number + 1))
        assert (views[0].item(), labels.item()) == (number, -number)
    assert len(prepared) == 3


def test_closing_closes_what_loads():
    """Loader processes must not outlive the run."""
    closed = []
    batches = prefetched(numbered(3, closed), lambda number: ([], torch.tensor(number)), CPU)
    next(batches)
    batches.close()
    assert closed == [True]


def test_errors_of_the_loader_pass_through():
    """A loading error is not swallowed."""

    def broken():
        yield 0
        raise OSError("no image")

    batches = prefetched(broken(), lambda number: ([], torch.tensor(number)), CPU)
    next(batches)
    with pytest.raises(OSError, match="no image"):
        next(batches)


@pytest.mark.gpu
def test_on_a_gpu_batches_are_made_ahead_and_whole():
    """The next batch is queued before the step; a slow side stream and reused memory do no harm."""
    device = torch.device("cuda", torch.cuda.current_device())
    prepared = []

    def prepare(number):
        prepared.append(number)
        torch.cuda._sleep(10_000_000)
        host = torch.full((1 << 20,), number).pin_memory()
        view = host.to(device, non_blocking=True) + 1
        return [view], torch.tensor(number).pin_memory().to(device, non_blocking=True)

    sums = []
    for number, (views, labels) in enumerate(prefetched(numbered(6), prepare, device)):
        assert prepared == list(range(min(number + 2, 6)))
        torch.cuda._sleep(10_000_000)
        sums.append(views[0].sum() - labels * (1 << 20))
        del views
    assert [total.item() for total in sums] == [1 << 20] * 6
