"""Set models side by side over many data sets, with mean, mean rank and published rows."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import rankdata

from rsa_eval.paper.transfer import TRANSFER_METRICS, TransferProtocol, transfer_rows
from rsa_eval.records.image_sets import image_hashes
from rsa_eval.records.record import Metric, Record
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_table import NOTHING, TableFormat, render_table

PUBLISHED_PROTOCOLS: Mapping[str, TransferProtocol | None] = {
    "kornblith": "logistic",
    "ridge": None,
    "byol": "finetune",
}
"""Published rows beside the records of each protocol of a transfer suite."""
TRANSFER_CAPTION = (
    "Numbers in brackets are 95 % intervals over test images. Mean and mean rank (1 is best) are "
    "over the data sets that every model here has, of two with the same images over one; "
    "half-widths of independent sets add in squares."
)
# The published suite has Caltech-101 with its background.
_PUBLISHED_NAMES = {"caltech101_background": "caltech101", "caltech101": None}
# Data sets made of images that another one has too.
_MADE_OF = {"caltech101": "caltech101_background", "scattered_digits": "digits"}
_UNITS = {"top1": "%", "mean_per_class": "% per class", "mAP_11_points": "mAP"}


@dataclass(frozen=True)
class ModelTransfer:
    """One model's headline on each data set."""

    name: str
    headlines: dict[str, Metric]
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


@dataclass(frozen=True)
class TransferTable:
    """Models as rows and data sets as columns, published rows below."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def render(self, table_format: TableFormat = "text") -> str:
        """Format the table."""
        return render_table(self.columns, self.rows, table_format, self.columns[1:])


def repeated_sets(records: Mapping[str, Record]) -> frozenset[str]:
    """Return the data sets whose test images an earlier one has too.

    Args:
        records: One of each data set.
    """
    hashes = {name: image_hashes(record).get("test") for name, record in records.items()}
    earlier: set[str] = set()
    found = []
    for name, own in hashes.items():
        if own in earlier:
            found.append(name)
        elif own is not None:
            earlier.add(own)
    return frozenset(found)


def transfer_notes(records: Mapping[tuple[str, str], Record]) -> list[str]:
    """Return what belongs beneath a table: the caption, and the warnings that records have.

    Args:
        records: By the names of the model and the record.
    """
    whose: dict[str, list[str]] = {}
    for (model, name), record in records.items():
        for text in record.warnings:
            whose.setdefault(text, []).append(f"{name} of {model}")
    return [
        TRANSFER_CAPTION,
        *(f"warning: {first_of(names)}: {text}" for text, names in whose.items()),
    ]


def transfer_table(
    models: Sequence[ModelTransfer],
    data_sets: Mapping[str, str],
    protocol: TransferProtocol | None,
    title: str = "",
    repeated: Collection[str] = (),
) -> TransferTable:
    """Arrange models over data sets.

    Means and ranks are over the sets that all models with any record have, of two sets with the
    same images over one.

    Args:
        models: At least one.
        data_sets: Headline metric of each data set, in the order of the columns.
        protocol: Protocol of the published rows; None for no such rows.
        title: Title of the table.
        repeated: Data sets whose test images another one has too.
    """
    measured = [model for model in models if model.headlines]
    common = [
        name
        for name in data_sets
        if _MADE_OF.get(name) not in data_sets
        and name not in repeated
        and all(name in model.headlines for model in measured)
    ]
    columns = [
        "Model",
        *(f"{name} ({_UNITS.get(metric, metric)})" for name, metric in data_sets.items()),
        f"Mean of {len(common)}",
        "Mean rank",
    ]
    rows: list[list[str]] = []
    for model, rank in zip(models, mean_ranks(models, common), strict=True):
        cells = [model.headlines.get(name) for name in data_sets]
        mean = mean_over(model, common)
        rows.append(
            [
                model.name,
                *(NOTHING if cell is None else cell.text for cell in cells),
                NOTHING if mean is None else mean.text,
                NOTHING if rank is None else f"{rank:.2f}",
            ]
        )
    if protocol is not None:
        rows += _published(data_sets, protocol)
    return TransferTable(title, columns, rows)


def _published(data_sets: Mapping[str, str], protocol: TransferProtocol) -> list[list[str]]:
    """Return the published rows, where they have one of the data sets in the same measure."""
    columns = [_PUBLISHED_NAMES.get(name, name) for name in data_sets]
    comparable = [
        column if column is not None and TRANSFER_METRICS.get(column) == metric else None
        for column, metric in zip(columns, data_sets.values(), strict=True)
    ]
    rows = []
    for row in transfer_rows(protocol):
        found = [None if column is None else row.values[column] for column in comparable]
        if any(value is not None for value in found):
            cells = [NOTHING if value is None else f"{value:.1f}" for value in found]
            name = f"{row.label}, ResNet-50 ({row.source})"
            rows.append([name, *cells, NOTHING, NOTHING])
    return rows
