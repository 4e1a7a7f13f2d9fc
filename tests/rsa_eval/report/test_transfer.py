"""Means, ranks and published rows of a transfer table, by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.campaigns.transfer.settings import KORNBLITH_SETS
from rsa_eval.paper.transfer import TRANSFER_METRICS
from rsa_eval.records.record import WILSON, Metric, MetricInterval, Record, write_record
from rsa_eval.report.transfer import (
    ModelTransfer,
    mean_over,
    mean_ranks,
    transfer_table,
)
from rsa_eval.report.write import write_report
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.weights.metadata import Origin


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
    head, own, *published = transfer_table([model], metrics, "logistic").render().splitlines()
    assert head.split("  ")[0] == "Model"
    assert "caltech101_background (% per class)" in head
    assert own.split() == ["mine", "60.04", "70.00", "65.0", "–"]
    assert published[0].split("  ")[0] == "BYOL, ResNet-50 (BYOL, Table 3)"
    assert published[0].split()[-4:] == ["75.5", "94.2", "–", "–"]
    assert len(transfer_table([model], metrics, None).render().splitlines()) == 2
    others = {"pcam": "top1"}
    assert len(transfer_table([model], others, "logistic").render().splitlines()) == 2


def test_only_comparable_published_numbers_are_shown() -> None:
    """Not beside Caltech-101 without its background, nor beside another measure."""
    model = ModelTransfer("mine", {"caltech101": _metric(70), "flowers102": _metric(80)})
    metrics = {"caltech101": "mean_per_class", "flowers102": "top1"}
    assert len(transfer_table([model], metrics, "logistic").rows) == 1
    table = transfer_table([model], metrics | {"flowers102": "mean_per_class"}, "logistic")
    assert table.rows[1][1:3] == ["–", "96.1"]


def test_shared_images_count_once() -> None:
    """Caltech-101 is in the mean without its background only where the whole is no column."""
    both = {"caltech101": _metric(90), "caltech101_background": _metric(70)}
    metrics = dict.fromkeys([*both, "dtd"], "top1")
    table = transfer_table([ModelTransfer("mine", both | {"dtd": _metric(50)})], metrics, None)
    assert table.columns[-2] == "Mean of 2"
    assert table.rows[0][-2] == "60.0"
    del metrics["caltech101_background"]
    table = transfer_table([ModelTransfer("mine", both | {"dtd": _metric(50)})], metrics, None)
    assert table.rows[0][-2] == "70.0"


def test_a_model_without_any_record_costs_the_others_nothing() -> None:
    """Its row is empty; mean and rank of the others stay."""
    sets = {"dtd": _metric(60), "pcam": _metric(80)}
    models = [ModelTransfer("a", sets), ModelTransfer("b", sets), ModelTransfer("failed", {})]
    table = transfer_table(models, {"dtd": "top1", "pcam": "top1"}, None)
    assert table.columns[-2] == "Mean of 2"
    assert [row[-2:] for row in table.rows] == [["70.0", "1.50"], ["70.0", "1.50"], ["–", "–"]]


def test_the_suite_has_the_published_metrics() -> None:
    """Each set of the suite is known, with the metric of its published numbers."""
    for name in KORNBLITH_SETS:
        published = {"caltech101_background": "caltech101", "cub200": "birdsnap"}.get(name, name)
        if name != "voc2007":
            assert data_set(name).metric == TRANSFER_METRICS[published]


def _lines(folder: Path) -> list[str]:
    """Write the report of a folder and return the heading and our rows of its transfer table."""
    write_report([folder], folder / "report.html")
    page = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    (start,) = [n for n, line in enumerate(page) if "on 2 data sets" in line]
    table = page[start + 2 : page.index("", start + 2)]
    table = [line.replace("\\_", "_") for line in table]
    return [line for line in table if "(BYOL, Table 3)" not in line and "---" not in line]


@pytest.fixture
def write(tmp_path: Path, make_result: Callable[..., Record]) -> Callable[..., None]:
    """A function that writes a record of top1, with a checkpoint's hash or a run's seed."""

    def _write(
        name: str,
        images: str,
        value: float,
        training: dict[str, Any] | None = None,
        seed: int = 0,
        *,
        data: dict[str, Any] | None = None,
        file: str | None = None,
        changed: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        record = make_result(kind="logistic", values={"top1": value})
        assert record.model.metadata is not None
        metadata = record.model.metadata.model_copy(update={"seed": seed})
        model = {"sha256": f"{name}{seed}", "pretraining": training, "metadata": metadata}
        own = {"name": images, "image_size": 32, "exif_orientation": True} | (data or {})
        config = {"seed": 0, "data": own} | settings
        changes = {
            "protocol": "kornblith",
            "data_set": images,
            "model": record.model.model_copy(update=model),
            "config": config,
        }
        path = tmp_path / f"{name}-{seed}" / "records" / f"{file or images}.json"
        write_record(record.model_copy(update=changes | (changed or {})), path)

    return _write


def test_models_of_one_name_are_rows_with_what_differs(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    """Another training and other settings of the evaluation are other rows."""
    for name, rate, tokens, digits, dtd in (
        ("a", 0.1, "default", 50, 40),
        ("b", 0.3, "default", 90, 20),
        ("c", 0.3, "cls", 10, 30),
    ):
        training = {"optimizer": {"base_lr": rate}}
        write(name, "digits", digits, training, tokens=tokens)
        write(name, "dtd", dtd, training, tokens=tokens)
    found = {tuple(line.split(" | ")[1:4]): line for line in _lines(tmp_path)[1:]}
    assert len(found) == 3
    for cells, rate, tokens in (
        (("50.00", "40.00", "45.0"), 0.1, "default"),
        (("90.00", "20.00", "55.0"), 0.3, "default"),
        (("10.00", "30.00", "20.0"), 0.3, "cls"),
    ):
        assert f"pretraining.optimizer.base_lr={rate} · tokens={tokens}" in found[cells]


def test_a_row_takes_the_seeds_of_all_its_sets(tmp_path: Path, write: Callable[..., None]) -> None:
    """Half way through a campaign there is one row, of the seeds that are complete."""
    training = {"optimizer": {"base_lr": 0.1}}
    for seed, digits in ((0, 60), (1, 90)):
        write("a", "digits", digits, training, seed)
    write("a", "dtd", 40, training, 0)
    heading, row = _lines(tmp_path)
    assert "Mean of 2" in heading
    assert row.split(" | ")[0].endswith(" · seed 0")
    assert row.split(" | ")[1:4] == ["60.00", "40.00", "50.0"]


def test_seeds_that_no_set_shares_are_noted(tmp_path: Path, write: Callable[..., None]) -> None:
    """Each cell then averages other seeds, which the name says."""
    training = {"optimizer": {"base_lr": 0.1}}
    write("a", "digits", 60, training, 0)
    write("a", "dtd", 40, training, 1)
    (row,) = _lines(tmp_path)[1:]
    assert "seeds differ between data sets" in row
    assert row.split(" | ")[1:4] == ["60.00", "40.00", "50.0"]


def test_settings_of_one_set_leave_a_model_in_one_row(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    """An own set may have its number of images, size and normalisation; columns have its name."""
    own = {"root": "/data/p", "num_train_images": 9, "image_size": 64, "exif_orientation": False}
    for name, digits, photos in (("a", 60, 40), ("b", 50, 20)):
        write(name, "digits", digits, file="logistic-digits")
        write(name, "imagefolder", photos, data=own, file="logistic-photos")
    heading, *rows = _lines(tmp_path)
    assert "digits (%) | photos (%) | Mean of 2 | Mean rank" in heading
    assert [row.split(" | ")[1:4] for row in rows] == [
        ["60.00", "40.00", "50.0"],
        ["50.00", "20.00", "35.0"],
    ]
    assert "data." not in "".join(rows)


def test_test_images_of_two_training_sets_count_once_in_the_mean(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    """Two columns of the same test images are not independent: the mean takes the first."""
    for root, value in (("one", 40), ("all", 60)):
        images = {"test": {"count": 30, "sha256": "x"}, "train": {"count": 9, "sha256": root}}
        changed = {"details": {"images": images}}
        file = f"logistic-{root}"
        write("a", "imagefolder", value, data={"root": root}, file=file, changed=changed)
    heading, row = _lines(tmp_path)
    assert "all (%) | one (%) | Mean of 1 |" in heading
    assert row.split(" | ")[1:4] == ["60.00", "40.00", "60.0"]


def test_image_settings_compared_on_one_set_part_the_rows(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    """Sizes stay together over the sets, in whatever order they were measured."""
    for images, sizes in (("digits", (32, 64)), ("dtd", (64, 32))):
        for size in sizes:
            file = f"{images}-{size}"
            write("a", images, size + 0.5, data={"image_size": size}, file=file)
    found = {line.split(" | ")[3]: line for line in _lines(tmp_path)[1:]}
    assert "data.image_size=32" in found["32.5"]
    assert "data.image_size=64" in found["64.5"]


def test_own_sets_without_the_names_of_a_suite_are_named_by_place(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    """So is one whose file bears a published name, and two of one name."""
    for root, file in (("p", "other"), ("q", "logistic-digits")):
        write(root, "imagefolder", 40, data={"root": root}, file=file)
    assert "imagefolder p (%) | imagefolder q (%)" in _lines(tmp_path)[0]


def test_imported_weights_are_rows_by_file_and_short_hash(
    tmp_path: Path, write: Callable[..., None], make_result: Callable[..., Record]
) -> None:
    """As in the command's table; two files of one name also show eight digits of their hash."""
    model = make_result().model
    assert model.metadata is not None
    words = dict.fromkeys(("file", "recognised", "network", "prefix", "pixels", "source"), "x")
    origin = Origin(**words, layout="timm", num_taken=1, dropped={}, filled=[], non_finite=[])
    metadata = model.metadata.model_copy(update={"origin": origin, "seed": None})
    for letter, checkpoint in (("a", "ck.pt"), ("b", "ck.pt"), ("c", "tv.pt")):
        known = {"checkpoint": checkpoint, "sha256": letter * 64, "metadata": metadata}
        changed = {"model": model.model_copy(update=known | {"pretraining": None})}
        for images in ("digits", "dtd"):
            write(letter, images, 50, changed=changed)
    names = [line.split(" | ")[0] for line in _lines(tmp_path)[1:]]
    assert [name.split(" · ")[0].removeprefix("| ") for name in names] == ["ck.pt"] * 2 + ["tv.pt"]
    assert [name.split(" · ")[-2] for name in names[:2]] == [f"weights={n * 8}" for n in "ab"]
    assert "weights=" not in names[2]


def test_a_report_has_one_table_over_data_sets(
    tmp_path: Path, make_result: Callable[..., Record]
) -> None:
    """Models are rows, a model without one of the sets has no rank; the page shows it."""
    for images, metric, values in (
        ("dtd", "top1", {"a": 60.0, "b": 70.0}),
        ("flowers102", "mean_per_class", {"a": 90.0, "b": 80.0}),
    ):
        for name, value in values.items():
            record = make_result(kind="logistic", values={metric: value})
            model = record.model.model_copy(update={"sha256": name})
            changes = {"protocol": "kornblith", "data_set": images, "model": model}
            changes["config"] = record.config | {"data": {"name": images}}
            path = tmp_path / name / "records" / f"{images}.json"
            write_record(record.model_copy(update=changes), path)
    write_report([tmp_path], tmp_path / "report.html")
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    (start,) = [n for n, line in enumerate(page.splitlines()) if "on 2 data sets" in line]
    lines = page.splitlines()[start + 2 : start + 6]
    assert "dtd (%) | flowers102 (% per class) | Mean of 2 | Mean rank" in lines[0]
    cells = [line.split(" | ")[1:] for line in lines[2:]]
    assert sorted(cells) == [
        ["60.00", "90.00", "75.0", "1.50 |"],
        ["70.00", "80.00", "75.0", "1.50 |"],
    ]
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'href="#transfer-1"' in html
    assert "BYOL, ResNet-50 (BYOL, Table 3)" in html
