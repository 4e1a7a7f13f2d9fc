"""A log becomes short lists of points."""

import json
import math

from rsa_eval.serve.live_curves import list_curves


def test_main_quantities_come_first() -> None:
    """Then those that a report plots, then all others; steps and epochs are axes."""
    line = {"step": 1, "epoch": 1.0, "zeta": 1.0, "beta": 0.3, "lr": 0.1, "loss_weak": 1.0}
    curves = list_curves([line | {"loss": 2.0}, line | {"step": 2, "knn_top1": 50.0}])
    assert [curve["key"] for curve in curves] == [
        *("loss", "knn_top1", "lr"),
        *("loss_weak", "beta", "zeta"),
    ]
    assert [curve["rank"] for curve in curves] == [0, 1, 5, None, None, None]
    titles = [curve["title"] for curve in curves]
    assert titles[2:5] == ["learning rate", "loss weak", "beta"]
    assert curves[1]["steps"] == (2,)


def test_long_logs_are_thinned() -> None:
    """At most 501 points a curve, the first and the last among them, six digits each."""
    lines = [{"step": step, "loss": math.pi / step} for step in range(1, 100_001)]
    (curve,) = list_curves(lines)
    assert len(curve["steps"]) == len(curve["values"]) == 501
    assert (curve["steps"][0], curve["steps"][-1]) == (1, 100_000)
    assert curve["values"][0] == 3.14159
    assert len(json.dumps(curve)) < 16_000


def test_what_is_no_number_is_no_point() -> None:
    """Gaps, NaN, infinity and text are left out, and so is a quantity without a number."""
    lines = [{"step": 1, "loss": math.nan, "note": "x"}, {"step": 2, "loss": 1.0, "lr": math.inf}]
    (curve,) = list_curves([*lines, {"step": 3}])
    assert (curve["key"], curve["steps"], curve["values"]) == ("loss", (2,), [1.0])


def test_a_log_of_many_quantities_is_cut() -> None:
    """A log with a thousand keys gives forty curves."""
    line = {f"key_{number}": 1.0 for number in range(1000)}
    assert len(list_curves([{"step": 1, "loss": 1.0} | line])) == 40
