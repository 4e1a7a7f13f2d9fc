import signal
import threading
import time

import pytest
import torch

from rsa_pretrain.training.background import NUM_AHEAD, in_background, planned_ahead


class Items:
    """Numbers, noting by which thread each is made, and that they are closed."""

    def __init__(self, count, slow=None):
        self.count = count
        self.slow = slow
        self.threads = []
        self.closed = False

    def __iter__(self):
        try:
            for number in range(self.count):
                self.threads.append(threading.current_thread())
                if self.slow is not None and number:
                    self.slow.wait(5)
                yield number
        finally:
            self.closed = True


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    """Each test ends with the threads it began with."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def settled(items):
    """Wait until no more items are made, and return how many are."""
    made = -1
    while made != len(items.threads):
        made = len(items.threads)
        time.sleep(0.05)
    return made


def test_items_keep_their_order():
    """All are yielded, the first made by the calling thread and the others by one other."""
    items = Items(50)
    assert list(in_background(iter(items))) == list(range(50))
    assert items.threads[0] is threading.current_thread()
    assert len(set(items.threads[1:])) == 1
    assert items.threads[1] is not threading.current_thread()
    assert items.closed


def test_nothing_to_make():
    """No item is yielded."""
    assert list(in_background(iter(Items(0)))) == []


def test_few_are_made_ahead():
    """However slow the consumer is."""
    items = Items(50)
    made = in_background(iter(items))
    assert items.threads == []
    for used in range(1, 4):
        next(made)
        assert settled(items) == used + NUM_AHEAD
    made.close()


def test_an_error_takes_the_place_of_its_item():
    """Items made before it are yielded first; the thread ends."""

    def broken():
        yield from range(5)
        raise OSError("no image")

    found = []
    with pytest.raises(OSError, match="no image"):
        found.extend(in_background(broken()))
    made = in_background(broken())
    assert [next(made) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="no image"):
        next(made)


def test_an_error_of_the_first_item_is_raised():
    """It needs no thread."""

    def broken():
        raise OSError("no image")
        yield

    with pytest.raises(OSError, match="no image"):
        next(in_background(broken()))


def test_closing_waits_for_the_item_being_made_alone():
    """Those requested after it are not made."""
    slow = threading.Event()
    items = Items(50, slow)
    made = in_background(iter(items))
    next(made)
    assert settled(items) == 2
    threading.Timer(0.1, slow.set).start()
    made.close()
    assert len(items.threads) == 2
    assert items.closed


@pytest.fixture
def _interruptible():
    """Heed the signal of Ctrl-C, which jobs in the background of a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_while_waiting_ends_the_thread():
    """As Ctrl-C does, it is raised in the consumer, which closes the generator."""
    slow = threading.Event()
    items = Items(50, slow)
    made = in_background(iter(items))
    next(made)
    main = threading.main_thread().ident
    threading.Timer(0.1, interrupt, [main]).start()
    threading.Timer(0.3, slow.set).start()
    with pytest.raises(KeyboardInterrupt):
        next(made)
    assert items.closed
    assert len(items.threads) == 2


def interrupt(thread):
    """Send the process the signal of Ctrl-C."""
    signal.pthread_kill(thread, signal.SIGINT)


def test_only_a_gpu_is_planned_for_in_the_background():
    """A CPU trains in the meantime; a thread would take its time."""
    items = iter(Items(3))
    assert planned_ahead(items, torch.device("cpu")) is items
    ahead = planned_ahead(items, torch.device("cuda"))
    assert ahead is not items
    assert list(ahead) == [0, 1, 2]
