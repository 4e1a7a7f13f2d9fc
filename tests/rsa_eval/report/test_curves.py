import math
import re

from rsa_eval.report.curves import draw_curves


def test_pictures_take_the_pages_colours() -> None:
    """Curves take their colours from the page; each kind of quantity has one panel."""
    metrics = [
        {"step": step, "loss": 1.0, "loss_aggressive": 0.5, "beta": 0.1, "ema_momentum": 0.99}
        for step in range(3)
    ]
    pictures = draw_curves(metrics)
    assert [picture.title for picture in pictures] == ["loss", "beta", "EMA momentum"]
    assert "var(--series-2)" in pictures[0].svg
    assert "var(--series-2)" not in pictures[1].svg
    colours = {
        colour for picture in pictures for colour in re.findall(r"#[0-9a-f]{6}\b", picture.svg)
    }
    assert colours <= {"#ffffff", "#000000"}


def test_values_that_cannot_be_drawn_are_left_out() -> None:
    """A NaN, a missing key or a log without any number does not stop the report."""
    assert draw_curves([]) == []
    pictures = draw_curves([{"step": 1, "loss": math.nan}, {"step": 2, "loss": 1.0}, {"step": 3}])
    assert [picture.title for picture in pictures] == ["loss"]


def test_names_of_metrics_are_escaped_in_the_drawing() -> None:
    """A legend is text, whatever a log calls its metrics."""
    evil = 'loss_</text></svg><script>alert("x")</script>'
    (picture,) = draw_curves([{"step": 1, "loss": 1.0, evil: 2.0}])
    assert "<script" not in picture.svg
    assert "alert(" in picture.svg
    assert picture.svg.count("</svg>") == 1
