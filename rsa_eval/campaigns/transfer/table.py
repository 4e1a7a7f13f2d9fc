"""Set models side by side over many data sets, with mean, mean rank and published rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from scipy.stats import rankdata

from rsa_eval.paper.transfer import TransferProtocol, transfer_rows
from rsa_eval.records.record import Metric, Record
from rsa_pretrain.plumbing.text_table import TableFormat, render_table

# The published suite has Caltech-101 with its background.
_PUBLISHED_NAMES = {"caltech101_background": "caltech101"}
_UNITS = {"top1": "%", "mean_per_class": "% per class", "mAP_11_points": "mAP"}


@dataclass(frozen=True)
class ModelTransfer:
    """One model's headline on each data set."""

    name: str
    headlines: Mapping[str, Metric]
    """By data set, in percent; sets without a record are missing."""

    @classmethod
    def of(cls, name: str, records: Mapping[str, Record]) -> "ModelTransfer":
        """Take the headlines of records by data set."""
        return cls(name, {key: own.metrics[own.headline] for key, own in records.items()})


@dataclass(frozen=True)
class TransferMean:
    """A model's mean over data sets."""

    value: float
    half_width: float | None
    """Of the 95 % interval over test images; None if a headline has no interval."""

    @property
    def text(self) -> str:
        """The mean with its interval."""
        return f"{self.value:.1f}" + (
            "" if self.half_width is None else f" ± {self.half_width:.1f}"
        )


def mean_over(model: ModelTransfer, data_sets: Sequence[str]) -> TransferMean | None:
    """Return the mean over data sets that all have a headline; None if one lacks it.

    The sets' test images are independent, so the half-widths add in squares.
    """
    found = [model.headlines.get(name) for name in data_sets]
    values = [metric for metric in found if metric is not None]
    if len(values) < len(data_sets) or not values:
        return None
    intervals = [metric.interval for metric in values if metric.interval is not None]
    half_width = None
    if len(intervals) == len(values):
        squares = sum(((own.high - own.low) / 2) ** 2 for own in intervals)
        half_width = math.sqrt(squares) / len(values)
    return TransferMean(sum(metric.value for metric in values) / len(values), half_width)


def mean_ranks(models: Sequence[ModelTransfer], data_sets: Sequence[str]) -> list[float | None]:
    """Return each model's rank, averaged over the data sets; 1 is best and ties share a rank.

    None for models that lack a headline, and for all if fewer than two have every one.
    """
    whole = [all(name in model.headlines for name in data_sets) for model in models]
    if sum(whole) < 2 or not data_sets:
        return [None] * len(models)
    rows = [
        [-model.headlines[name].value for name in data_sets]
        for model, has_all in zip(models, whole, strict=True)
        if has_all
    ]
    means = iter(rankdata(rows, axis=0).mean(axis=1).tolist())
    return [float(next(means)) if has_all else None for has_all in whole]


def transfer_table(
    models: Sequence[ModelTransfer],
    data_sets: Mapping[str, str],
    protocol: TransferProtocol | None,
    table_format: TableFormat = "text",
) -> str:
    """Format the models as rows and the data sets as columns, published rows below.

    Args:
        models: At least one.
        data_sets: Headline metric of each data set, in the order of the columns.
        protocol: Protocol of the published rows; None for no such rows.
        table_format: As of ``render_table``.
    """
    common = [name for name in data_sets if all(name in model.headlines for model in models)]
    columns = [
        "model",
        *(f"{name} ({_UNITS.get(metric, metric)})" for name, metric in data_sets.items()),
        f"mean of {len(common)}",
        "mean rank",
    ]
    rows: list[list[object]] = []
    for model, rank in zip(models, mean_ranks(models, common), strict=True):
        cells = [model.headlines.get(name) for name in data_sets]
        mean = mean_over(model, common)
        rows.append(
            [
                model.name,
                *(None if cell is None else cell.text for cell in cells),
                None if mean is None else mean.text,
                None if rank is None else Decimal(f"{rank:.2f}"),
            ]
        )
    if protocol is not None:
        rows += _published(data_sets, protocol)
    return render_table(columns, rows, table_format, columns[1:])


def _published(data_sets: Mapping[str, str], protocol: TransferProtocol) -> list[list[object]]:
    """Return the published rows, where they have one of the data sets."""
    rows: list[list[object]] = []
    for row in transfer_rows(protocol):
        found = [row.values.get(_PUBLISHED_NAMES.get(name, name)) for name in data_sets]
        if any(value is not None for value in found):
            cells = [None if value is None else f"{value:.1f}" for value in found]
            rows.append([f"{row.label}, ResNet-50 ({row.source})", *cells, None, None])
    return rows
