import pytest

from rsa_eval.paper.transfer import (
    TRANSFER_METRICS,
    TransferProtocol,
    TransferRow,
    transfer_rows,
)


def _row(protocol: TransferProtocol, label: str) -> TransferRow:
    (row,) = (row for row in transfer_rows(protocol) if row.label == label)
    return row


@pytest.mark.parametrize(("protocol", "more"), [("logistic", []), ("finetune", ["Random init"])])
def test_every_row_has_every_data_set(protocol: TransferProtocol, more: list[str]) -> None:
    """Twelve percentages each; random weights are fine-tuned only."""
    rows = transfer_rows(protocol)
    labels = ["BYOL", "SimCLR (repro)", "SimCLR", "Supervised-IN", *more]
    assert [row.label for row in rows] == labels
    for row in rows:
        assert row.protocol == protocol
        assert list(row.values) == list(TRANSFER_METRICS)
        assert all(30 < value < 100 for value in row.values.values())


@pytest.mark.parametrize(
    ("protocol", "label", "total"),
    [("logistic", "BYOL", 931.5), ("finetune", "Random init", 948.2)],
)
def test_means_of_rows(protocol: TransferProtocol, label: str, total: float) -> None:
    """Sums by hand of the printed rows, over twelve."""
    values = _row(protocol, label).values
    assert sum(values.values()) / 12 == pytest.approx(total / 12)


def test_mean_that_another_paper_prints() -> None:
    """RealSyn (arXiv:2502.12513v3, Table 14) prints SimCLR's logistic row with this average."""
    values = _row("logistic", "SimCLR").values
    assert f"{sum(values.values()) / 12:.1f}" == "70.6"


def test_what_the_paper_says_of_its_table() -> None:
    """BYOL's features beat SimCLR's on all data sets, and the supervised ones on 7 of the 12."""
    byol, simclr, supervised = (
        _row("logistic", label).values for label in ("BYOL", "SimCLR", "Supervised-IN")
    )
    assert all(byol[name] > simclr[name] for name in byol)
    assert sum(byol[name] > supervised[name] for name in byol) == 7


def test_measures_of_data_sets() -> None:
    """Four data sets are averaged over classes, one over its classes' precision."""
    by_class = [name for name, metric in TRANSFER_METRICS.items() if metric == "mean_per_class"]
    assert by_class == ["fgvc_aircraft", "oxford_pets", "caltech101", "flowers102"]
    assert TRANSFER_METRICS["voc2007"] == "mAP_11_points"
    assert set(TRANSFER_METRICS.values()) == {"top1", "mean_per_class", "mAP_11_points"}
