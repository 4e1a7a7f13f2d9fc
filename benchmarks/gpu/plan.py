"""Choose what fits in the time that is left."""

from collections.abc import Sequence

from benchmarks.gpu.items import Item

# An item may take so many times its expected time, unless later ones would lose theirs.
_PATIENCE = 2


def kept_items(pending: Sequence[Item], seconds: float) -> list[Item]:
    """Return the items to run, in their order.

    Those that may be cut are, in the order of ``cut``, until the rest is expected to fit.

    Args:
        pending: Items not yet run.
        seconds: Time left.
    """
    kept = list(pending)
    for item in sorted((item for item in pending if item.cut is not None), key=_order):
        if _expected(kept) <= seconds:
            break
        kept.remove(item)
    return kept


def limit_of(item: Item, later: Sequence[Item], seconds: float) -> float:
    """Return the seconds after which an item is ended.

    Args:
        item: The next item.
        later: Those after it that should run.
        seconds: Time left.
    """
    uncut = _expected([other for other in later if other.cut is None])
    spare = max(seconds - uncut, min(item.seconds, seconds))
    return spare if item.fills else min(_PATIENCE * item.seconds, spare)


def _expected(items: Sequence[Item]) -> float:
    return sum(item.seconds for item in items)


def _order(item: Item) -> int:
    assert item.cut is not None
    return item.cut
