from itertools import islice

from detection.feeding.batches import OrientedBatches


def _batches(
    wide: str, steps: range, size: int = 2, *, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """Batches of a stream whose positions repeat a pattern, w for wide."""
    return list(
        OrientedBatches(
            lambda position: wide[position % len(wide)] == "w",
            size,
            steps,
            rank=rank,
            world_size=world,
        )
    )


def test_batches_by_hand() -> None:
    """A batch is complete when two of one kind have come; leftovers wait for their like."""
    assert _batches("wthw", range(4)) == [[1, 2], [0, 3], [5, 6], [4, 7]]
    assert _batches("w", range(2), 3) == [[0, 1, 2], [3, 4, 5]]


def test_later_batches_are_the_same() -> None:
    """A resumed run draws the batches it would have drawn."""
    assert _batches("wtwwt", range(3, 8)) == _batches("wtwwt", range(8))[3:]


def test_processes_share_the_stream() -> None:
    """No position is taken twice, each batch is of one kind, and each process has its own share."""
    pattern = "wttwwtw"
    parts = [_batches(pattern, range(20), rank=rank, world=3) for rank in range(3)]
    taken = [position for part in parts for batch in part for position in batch]
    assert len(taken) == len(set(taken)) == 120
    for rank, part in enumerate(parts):
        for batch in part:
            assert len({pattern[position % 7] for position in batch}) == 1
            assert {position % 3 for position in batch} == {rank}


def test_equal_images_are_taken_in_order() -> None:
    """Where all have one orientation, a step's batches are the next images of the stream."""
    parts = [_batches("t", range(2), rank=rank, world=2) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_sampler_can_be_iterated_again() -> None:
    """Each iteration starts at the first of its steps."""
    sampler = OrientedBatches(lambda _: True, 1, range(5, 9), rank=0, world_size=1)
    assert list(islice(sampler, 2)) == [[5], [6]]
    assert list(sampler) == [[5], [6], [7], [8]]
