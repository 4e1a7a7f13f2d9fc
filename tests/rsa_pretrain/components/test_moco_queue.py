import pytest
import torch
from torch import nn

from rsa_pretrain.components.moco_queue import MoCoQueue


def keys(first, count, dim=3):
    """Recognisable keys: unit vectors in the direction (1, number, 0…)."""
    rows = torch.zeros(count, dim)
    rows[:, 0] = 1
    rows[:, 1] = torch.arange(first, first + count)
    return rows


def numbers(queue):
    """The numbers of the queue's keys."""
    return (queue.keys[:, 1] / queue.keys[:, 0]).round().int().tolist()


def test_starts_with_unit_vectors():
    """Negatives are on the sphere from the first step."""
    torch.testing.assert_close(MoCoQueue(50, 8).keys.norm(dim=1), torch.ones(50))


def test_wraps_around_with_a_batch_that_does_not_divide_it():
    """The end is followed by the beginning; the oldest keys go first."""
    queue = MoCoQueue(7, 3)
    for first in (0, 3, 6):
        queue.enqueue(keys(first, 3))
    assert numbers(queue) == [7, 8, 2, 3, 4, 5, 6]
    assert queue.position == 2


@pytest.mark.parametrize("count", [7, 9, 15])
def test_a_batch_as_large_as_the_queue_leaves_its_last_keys(count):
    """Position and content are those of enqueuing the keys one by one."""
    whole, single = MoCoQueue(7, 3), MoCoQueue(7, 3)
    for queue in (whole, single):
        queue.enqueue(keys(100, 2))
    whole.enqueue(keys(0, count))
    for number in range(count):
        single.enqueue(keys(number, 1))
    assert numbers(whole) == numbers(single)
    assert whole.position == single.position


def test_keys_are_normalised():
    """Length does not count."""
    queue = MoCoQueue(4, 3)
    queue.enqueue(5 * keys(0, 4))
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(4))


def test_state_survives_a_round_trip():
    """Keys and position are in the state dict, so a resumed run has the same negatives."""
    queue = MoCoQueue(5, 3)
    queue.enqueue(keys(0, 3))
    other = MoCoQueue(5, 3)
    other.load_state_dict(queue.state_dict())
    for one in (queue, other):
        one.enqueue(keys(10, 4))
    assert torch.equal(queue.keys, other.keys)
    assert queue.position == other.position == 2
    assert not list(nn.Module.parameters(queue))
