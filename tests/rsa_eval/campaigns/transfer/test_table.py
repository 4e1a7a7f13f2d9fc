"""Means, ranks and published rows of a transfer table, by hand."""

import math

import pytest

from rsa_eval.campaigns.transfer.settings import KORNBLITH_SETS
from rsa_eval.campaigns.transfer.table import (
    ModelTransfer,
    mean_over,
    mean_ranks,
    transfer_table,
)
from rsa_eval.paper.transfer import TRANSFER_METRICS
from rsa_eval.records.record import WILSON, Metric, MetricInterval
from rsa_pretrain.data.sets import data_set


def _metric(value: float, half_width: float | None = None) -> Metric:
    interval = None
    if half_width is not None:
        low, high = value - half_width, value + half_width
        interval = MetricInterval(low=low, high=high, method=WILSON)
    return Metric(value=value, unit="%", interval=interval)


def test_mean_and_interval() -> None:
    """Half-widths of independent sets add in squares; without one there is none."""
    model = ModelTransfer("a", {"dtd": _metric(60, 3), "pcam": _metric(80, 4)})
    found = mean_over(model, ["dtd", "pcam"])
    assert found is not None
    assert found.value == 70
    assert found.half_width == pytest.approx(math.sqrt(9 + 16) / 2)
    assert found.text == "70.0 ± 2.5"
    bare = ModelTransfer("b", {"dtd": _metric(60, 3), "pcam": _metric(80)})
    other = mean_over(bare, ["dtd", "pcam"])
    assert other is not None
    assert (other.half_width, other.text) == (None, "70.0")
    assert mean_over(model, ["dtd", "svhn"]) is None


def test_ranks() -> None:
    """The best is 1, ties share, and a model that lacks a set has none."""
    models = [
        ModelTransfer("a", {"dtd": _metric(60), "pcam": _metric(80)}),
        ModelTransfer("b", {"dtd": _metric(70), "pcam": _metric(80)}),
        ModelTransfer("c", {"dtd": _metric(50), "pcam": _metric(90)}),
        ModelTransfer("d", {"dtd": _metric(99)}),
    ]
    assert mean_ranks(models, ["dtd", "pcam"]) == [2.25, 1.75, 2.0, None]
    assert mean_ranks(models[:1], ["dtd"]) == [None]


def test_published_rows_stand_below() -> None:
    """With the columns they have; Caltech-101 with its background is the published one."""
    model = ModelTransfer("mine", {"dtd": _metric(60.04), "caltech101_background": _metric(70)})
    metrics = {"dtd": "top1", "caltech101_background": "mean_per_class"}
    head, own, *published = transfer_table([model], metrics, "logistic").splitlines()
    assert head.split("  ")[0] == "model"
    assert "caltech101_background (% per class)" in head
    assert own.split() == ["mine", "60.04", "70.00", "65.0", "–"]
    assert published[0].split("  ")[0] == "BYOL, ResNet-50 (BYOL, Table 3)"
    assert published[0].split()[-4:] == ["75.5", "94.2", "–", "–"]
    assert len(transfer_table([model], metrics, None).splitlines()) == 2
    others = {"pcam": "top1"}
    assert len(transfer_table([model], others, "logistic").splitlines()) == 2


def test_the_suite_has_the_published_metrics() -> None:
    """Each set of the suite is known, with the metric of its published numbers."""
    for name in KORNBLITH_SETS:
        published = {"caltech101_background": "caltech101", "cub200": "birdsnap"}.get(name, name)
        if name != "voc2007":
            assert data_set(name).metric == TRANSFER_METRICS[published]
