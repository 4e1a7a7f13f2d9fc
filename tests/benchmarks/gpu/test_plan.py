from benchmarks.gpu.items import ITEMS, Item
from benchmarks.gpu.plan import kept_items, limit_of

TESTS = Item("tests", "tests", 80)
STEP = Item("step", "step", 45, cut=2)
LARGE = Item("large", "step", 45, cut=1)
LAST = Item("last", "accuracy", 240, fills=True)
ALL = [TESTS, STEP, LARGE, LAST]


def test_items_are_cut_until_the_rest_fits() -> None:
    """In the order of cutting; those that are never cut stay, however short the time is."""
    assert kept_items(ALL, 410) == ALL
    assert kept_items(ALL, 409) == [TESTS, STEP, LAST]
    assert kept_items(ALL, 364) == [TESTS, LAST]
    assert kept_items(ALL, 1) == [TESTS, LAST]


def test_an_item_has_twice_its_time_but_not_that_of_others() -> None:
    """The time of items that are never cut is kept for them; the last takes all that is left."""
    assert limit_of(TESTS, [STEP, LARGE, LAST], 900) == 160
    assert limit_of(TESTS, [STEP, LARGE, LAST], 340) == 100
    assert limit_of(TESTS, [STEP, LARGE, LAST], 200) == 80
    assert limit_of(TESTS, [LAST], 50) == 50
    assert limit_of(LAST, [], 613) == 613


def test_a_quarter_of_an_hour_is_enough_for_the_items() -> None:
    """Nothing is cut in 15 minutes; in nine the network of 224 pixels goes first."""
    assert kept_items(ITEMS, 15 * 60) == list(ITEMS)
    shorter = {item.name for item in kept_items(ITEMS, 9 * 60)}
    assert {"card", "gpu_tests", "step", "epoch", "accuracy"} <= shorter
    assert not {"step_resnet50", "lightly_epoch", "engines"} & shorter


def test_the_order_of_cutting_is_total() -> None:
    """No two items are cut at the same place, and two are never cut."""
    places = [item.cut for item in ITEMS if item.cut is not None]
    assert len(set(places)) == len(places)
    assert {item.name for item in ITEMS if item.cut is None} == {"gpu_tests", "accuracy"}
