from contextlib import nullcontext

import pytest
import torch

from rsa_pretrain.training.prefetch import Ready, prefetched

CPU = torch.device("cpu")


def numbered(count, closed=None):
    """Blocks in host memory, each its number; notes when it is closed."""
    try:
        yield from range(count)
    finally:
        if closed is not None:
            closed.append(True)


def alone(number):
    """A block of one batch without views."""
    return [Ready([], torch.tensor(number))]


def test_on_a_cpu_batches_are_prepared_when_asked_for():
    """In their order, none ahead of time."""
    prepared = []

    def prepare(number):
        prepared.append(number)
        return [Ready([torch.tensor(number)], torch.tensor(-number))]

    batches = prefetched(numbered(3), prepare, CPU, timed=iter)
    assert prepared == []
    for number, (views, labels) in enumerate(batches):
        assert prepared == list(range(number + 1))
        assert (views[0].item(), labels.item()) == (number, -number)
    assert len(prepared) == 3


def test_blocks_are_cut_into_batches():
    """Of any number, in order."""

    def prepare(number):
        return [Ready([], torch.tensor(10 * number + place)) for place in range(number)]

    batches = prefetched(numbered(4), prepare, CPU, timed=iter)
    assert [labels.item() for _, labels in batches] == [10, 20, 21, 30, 31, 32]


def test_closing_closes_what_loads():
    """Loader processes must not outlive the run."""
    closed = []
    batches = prefetched(numbered(3, closed), alone, CPU, timed=iter)
    next(batches)
    batches.close()
    assert closed == [True]


def test_errors_of_the_loader_pass_through():
    """A loading error is not swallowed."""

    def broken():
        yield 0
        raise OSError("no image")

    batches = prefetched(broken(), alone, CPU, timed=iter)
    next(batches)
    with pytest.raises(OSError, match="no image"):
        next(batches)


class Streams:
    """Requests to the streams of a GPU, in order; each stream is known by its name."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.current = "step"
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "side"))
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self, self.current))

    def entered(self, stream):
        """Return the context in which a stream is the current one; it is not followed."""
        assert stream.name == "side"
        return nullcontext()


class Stream:
    """One of them."""

    def __init__(self, streams, name):
        self.streams = streams
        self.name = name

    def wait_stream(self, other):
        """Note it."""
        self.streams.asked.append(f"{self.name} waits for {other.name}")

    def record_event(self):
        """Return the stream's name and how many blocks it has made, as the event."""
        return f"{self.name} {self.streams.asked[-1]}"

    def wait_event(self, event):
        """Note it."""
        self.streams.asked.append(f"{self.name} waits for {event}")


class View:
    """A tensor on the GPU."""

    def __init__(self, streams, name):
        self.streams = streams
        self.name = name

    def record_stream(self, stream):
        """Note it."""
        self.streams.asked.append(f"{self.name} is kept for {stream.name}")


@pytest.mark.parametrize("size", [1, 3])
def test_a_step_is_launched_before_the_next_block_is_queued(size, monkeypatch):
    """One block is queued ahead, after the first step of the one before; each batch is awaited."""
    streams = Streams(monkeypatch)

    def prepare(number):
        streams.asked.append(f"block {number}")
        names = [f"{number}{'abc'[place]}" for place in range(size)]
        return [Ready([View(streams, name)], View(streams, f"labels {name}")) for name in names]

    for number, _ in enumerate(prefetched(numbered(3), prepare, torch.device("cuda"), timed=iter)):
        streams.asked.append(f"step {number}")
        streams.current = f"step stream {number}"
    expected = ["side waits for step"]
    before = "step"
    for number in range(3 * size):
        block, place = divmod(number, size)
        name = f"{block}{'abc'[place]}"
        if number == 0:
            expected += ["block 0"]
        expected += [
            *[f"{before} waits for side block {block}"],
            *[f"{name} is kept for {before}", f"labels {name} is kept for {before}"],
            *[f"step {number}"],
        ]
        if place == 0 and block < 2:
            expected += [f"block {block + 1}"]
        before = f"step stream {number}"
    assert streams.asked == expected


def test_batches_without_labels_are_kept_too(monkeypatch):
    """Their views alone."""
    streams = Streams(monkeypatch)
    blocks = prefetched(
        numbered(1),
        lambda number: [Ready([View(streams, "view")], None)],
        torch.device("cuda"),
        timed=iter,
    )
    assert [labels for _, labels in blocks] == [None]
    assert streams.asked[-1] == "view is kept for step"


@pytest.mark.parametrize(("name", "timed"), [("cpu", ["batch 1", "batch 2"]), ("cuda", ["block"])])
def test_waiting_is_not_launching(name, timed, monkeypatch):
    """On a CPU the making of each batch is timed, on a GPU the loading of each block alone."""
    streams, found = Streams(monkeypatch), []

    def measured(items):
        for item in items:
            found.append("block" if isinstance(item, int) else f"batch {len(found) + 1}")
            yield item

    def prepare(number):
        return [Ready([View(streams, "view")], None)] * 2

    assert len(list(prefetched(numbered(1), prepare, torch.device(name), measured))) == 2
    assert found == timed


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 4])
def test_on_a_gpu_batches_are_made_ahead_and_whole(size):
    """The next block is queued after a step; a slow side stream and reused memory do no harm."""
    device = torch.device("cuda", torch.cuda.current_device())
    prepared = []

    def prepare(number):
        prepared.append(number)
        torch.cuda._sleep(10_000_000)
        host = torch.arange(number * size, (number + 1) * size).repeat_interleave(1 << 20)
        view = host.pin_memory().to(device, non_blocking=True).view(size, -1) + 1
        labels = host[:: 1 << 20].contiguous().pin_memory().to(device, non_blocking=True)
        return [Ready([view[place]], labels[place]) for place in range(size)]

    sums = []
    with torch.cuda.stream(torch.cuda.Stream(device)):
        for number, (views, labels) in enumerate(
            prefetched(numbered(6), prepare, device, timed=iter)
        ):
            block, place = divmod(number, size)
            assert prepared == list(range(min(block + (2 if place else 1), 6)))
            torch.cuda._sleep(10_000_000)
            sums.append(views[0].sum() - labels * (1 << 20))
            del views
        assert [total.item() for total in sums] == [1 << 20] * (6 * size)
