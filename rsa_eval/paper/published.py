"""Published numbers to compare with, each with its model, setting and source.

Scores are kept as printed. ``RSA`` is the RSA paper (Bai et al., NeurIPS 2022); its Tables 5 and 6
take their baselines from InfoMin. Other sources are named in full.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from rsa_eval.paper.numbers import (
    DETECTION_METRICS,
    OTHERS,
    SMALL_SETS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_8,
    TABLE_8_SETS,
)
from rsa_pretrain.data.sets import DATA_SETS

PAPER_DATA_SETS = {entry.name: entry.label for entry in DATA_SETS} | {
    "coco": "COCO",
    "voc0712": "PASCAL VOC 07+12",
    "voc2012": "PASCAL VOC 2012",
    "ade20k": "ADE20K",
}
"""Names of data sets: ``data.name`` → the papers' name."""

PAPER_METHODS = {
    "rsa": "RSA",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "simsiam_rsa": "SimSiam + RSA",
    "simclr": "SimCLR",
    "moco_v2": "MoCo v2",
    "supervised": "Supervised",
}
"""Names of methods: ``method.name`` → the papers' name."""

_NOT_PRETRAINED_FOR_200 = ("random init.", "supervised")  # rows of Tables 5 and 6


@dataclass(frozen=True)
class Score:
    """One printed number in percent, with its standard deviation over trials if it has one."""

    text: str

    @property
    def mean(self) -> float:
        """The score without its deviation."""
        return float(self.text.partition("±")[0])

    @property
    def std(self) -> float | None:
        """The standard deviation printed after ±."""
        _, sign, deviation = self.text.partition("±")
        return float(deviation) if sign else None


@dataclass(frozen=True)
class PaperCell:
    """Position of a score in the paper's tables."""

    table: int
    row: tuple[str, ...]
    """The row's labels."""
    column: tuple[str, ...]
    """The column's headings, outermost first; empty for detection, whose metrics give them."""


@dataclass(frozen=True)
class Published:
    """One model of one published table, on one data set."""

    data_set: str
    kind: str
    """The evaluator, as in records."""
    method: str
    setting: str
    """Network, epochs and other conditions of the number."""
    scores: Mapping[str, Score]
    """By metric, named as in records."""
    source: str
    """Table and row."""
    place: PaperCell | None = None
    """None outside the paper's tables."""
    epochs: int | None = None
    """Epochs of pretraining; None where the paper does not say."""


def published_for(data_set: str, kind: str) -> list[Published]:
    """Return the published numbers for a data set and an evaluator, in the order of the tables."""
    return [row for row in PUBLISHED if row.data_set == data_set and row.kind == kind]


def paper_cells(table: int) -> list[Published]:
    """Return the cells of a table of the paper (rows of Tables 5 and 6), row by row."""
    return [row for row in PUBLISHED if row.place is not None and row.place.table == table]


def _table_1() -> Iterator[Published]:
    for (method, views, beta), scores in TABLE_1.items():
        how = f"{views}, beta {beta}" if method == "RSA" else views
        for data_set, text in zip((*SMALL_SETS, "imagenet100"), scores, strict=True):
            epochs = 100 if data_set == "imagenet100" else 200
            yield Published(
                data_set=data_set,
                kind="linear",
                method=method,
                setting=f"{_network(data_set)}, {epochs} epochs, {how}",
                scores={"top1": Score(text)},
                source=f"RSA, Table 1, row {method} {how}",
                place=PaperCell(1, (method, views, beta), (PAPER_DATA_SETS[data_set],)),
                epochs=epochs,
            )


def _table_2() -> Iterator[Published]:
    for method, cells in TABLE_2.items():
        for data_set, cell in zip(SMALL_SETS, cells, strict=True):
            for epochs, text in zip((200, 800), cell.split(), strict=True):
                place = PaperCell(2, (method,), (PAPER_DATA_SETS[data_set], f"{epochs} ep"))
                yield _linear(data_set, method, epochs, text, place)


def _table_3() -> Iterator[Published]:
    for method, cell in TABLE_3.items():
        for epochs, text in zip((100, 200), cell.split(), strict=True):
            place = PaperCell(3, (method, "256"), (f"{epochs} ep",))
            yield _linear("imagenet100", method, epochs, text, place)


def _table_4() -> Iterator[Published]:
    for number, (method, negatives, batch, epochs, text) in enumerate(TABLE_4, start=1):
        place = PaperCell(4, (method, negatives, str(batch), str(epochs)), ("Top-1 linear",))
        row = _linear("imagenet", method, epochs, text, place)
        yield replace(
            row,
            setting=f"{row.setting}, batch {batch}",
            source=f"RSA, Table 4, row {number}: {method}",
        )


def _tables_5_and_6() -> Iterator[Published]:
    for table, schedule, rows in ((5, "1×", TABLE_5), (6, "2×", TABLE_6)):
        for method, cell in rows.items():
            texts = zip(DETECTION_METRICS, cell.split(), strict=True)
            yield Published(
                data_set="coco",
                kind="detection",
                method=method,
                setting=f"Mask R-CNN R50-FPN, {schedule} schedule",
                scores={metric: Score(text) for metric, text in texts},
                source=f"RSA, Table {table}, row {method}",
                place=PaperCell(table, (method,), ()),
                epochs=None if method in _NOT_PRETRAINED_FOR_200 else 200,
            )


def _table_8() -> Iterator[Published]:
    for method, scores in TABLE_8.items():
        for data_set, text in zip(TABLE_8_SETS, scores, strict=True):
            yield _linear(
                data_set, method, 200, text, PaperCell(8, (method,), (PAPER_DATA_SETS[data_set],))
            )


def _others() -> Iterator[Published]:
    for (data_set, kind, setting, source), methods in OTHERS:
        for method, text in methods.items():
            yield Published(data_set, kind, method, setting, {"top1": Score(text)}, source)


def _linear(data_set: str, method: str, epochs: int, text: str, place: PaperCell) -> Published:
    return Published(
        data_set=data_set,
        kind="linear",
        method=method,
        setting=f"{_network(data_set)}, {epochs} epochs",
        scores={"top1": Score(text)},
        source=f"RSA, Table {place.table}, row {method}",
        place=place,
        epochs=epochs,
    )


def _network(data_set: str) -> str:
    return "ResNet-18" if data_set in SMALL_SETS else "ResNet-50"


PUBLISHED = (
    *_table_1(),
    *_table_2(),
    *_table_3(),
    *_table_4(),
    *_tables_5_and_6(),
    *_table_8(),
    *_others(),
)
