from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.records.groups import group_records
from rsa_eval.records.record import Metric, Record
from rsa_eval.report.paper_tables import build_paper_tables
from rsa_eval.report.summary import describe_coverage, describe_extent, find_best
from rsa_eval.report.tables import Table, build_tables

MakeResult = Callable[..., Record]
RSA, BYOL = "cifar10/rsa", "cifar10/byol"


def _tables(*records: Record) -> list[Table]:
    found = [(Path(f"{number}.json"), record) for number, record in enumerate(records)]
    return build_tables(group_records(found))


def _texts(table: Table) -> list[list[str]]:
    return [[cell.text if cell else "" for cell in row.cells] for row in table.rows]


def test_missing_numbers_are_empty_cells(make_trial: MakeResult) -> None:
    """A model without a metric another one has gets an empty cell, and no guessed difference."""
    (table,) = _tables(make_trial(RSA), make_trial(BYOL, values={"top1": 80.0}))
    assert table.columns == ["top1 (%)", "top5 (%)"]
    assert _texts(table) == [["91.25", "99.50"], ["80.00", ""]]
    assert [row.difference_text for row in table.rows] == ["", ""]
    assert not table.has_differences


@pytest.mark.parametrize("change", [{"num_samples": 31}, {"deviations": ["mode cached"]}])
def test_unlike_baselines_are_not_subtracted(
    make_result: MakeResult, change: dict[str, object]
) -> None:
    """Random weights evaluated on other images or by other settings are no baseline."""
    baseline = make_result(random_init=True, values={"top1": 40.0}, **change)
    (table,) = _tables(make_result(), baseline)
    assert [row.difference for row in table.rows] == [None, None]


def test_difference_is_to_the_mean_of_the_baselines(make_result: MakeResult) -> None:
    """Two random seeds at 40 and 43 stand for 41.5."""
    baselines = [
        make_result(random_init=True, values={"top1": top1}, seeds=[seed], config={"seed": seed})
        for seed, top1 in enumerate((40.0, 43.0))
    ]
    (table,) = _tables(make_result(), *baselines)
    assert [row.difference_text for row in table.rows] == ["+49.75", ""]
    assert _texts(table)[1][0] == "41.50 ± 2.12"


def test_detectors_stand_by_engine(make_result: MakeResult) -> None:
    """Each row names its engine, and random weights trained by another are no baseline."""
    records = [
        make_result(
            kind="detection",
            values={"bbox_AP": value},
            config={"seed": 0, "engine": engine},
            random_init=random_init,
        )
        for engine, random_init, value in (
            ("torchvision", False, 40.0),
            ("detectron2", False, 41.0),
            ("detectron2", True, 30.0),
            ("torchvision", True, 20.0),
        )
    ]
    (table,) = _tables(*records)
    found = [
        (row.detail.rpartition(" · ")[2], text, row.difference_text)
        for row, (text,) in zip(table.rows, _texts(table), strict=True)
    ]
    assert found == [
        ("engine torchvision", "40.00", "+20.00"),
        ("engine detectron2", "41.00", "+11.00"),
        ("engine detectron2", "30.00", ""),
        ("engine torchvision", "20.00", ""),
    ]
    (probe,) = _tables(make_result())
    assert "engine" not in probe.rows[0].detail


def test_deviations_mark_their_row(make_trial: MakeResult) -> None:
    """Each departure is one footnote, and each row points at its own."""
    records = [make_trial(RSA, deviations=["a", "b"]), make_trial(RSA, deviations=["b"])]
    (table,) = _tables(*records, make_trial(RSA))
    assert table.footnotes == ("a", "b")
    assert [row.marks for row in table.rows] == [(1, 2), (2,), ()]


def test_one_table_per_data_set_evaluator_and_protocol(make_result: MakeResult) -> None:
    """Nothing is compared across them."""
    records = [
        make_result(data_set="digits"),
        make_result(),
        make_result(kind="knn", protocol="weighted_vote"),
        make_result(kind="detection", data_set="coco", protocol="mask_rcnn_R_50_FPN_1x"),
        make_result(
            kind="detection",
            data_set="coco",
            protocol="mask_rcnn_R_50_FPN_1x_random",
            random_init=True,
        ),
    ]
    tables = _tables(*records)
    assert [(table.title, table.data_set) for table in tables] == [
        ("Nearest neighbours", "CIFAR-10"),
        ("Linear probe", "CIFAR-10"),
        ("Linear probe", "Digits"),
        ("Object detection and instance segmentation", "COCO"),
    ]
    assert [len(table.rows) for table in tables] == [1, 1, 1, 2]


@pytest.mark.parametrize("kind", ["logistic", "low-shot", "finetune", "svm", "diagnostics"])
def test_every_evaluator_has_its_table_and_units(make_result: MakeResult, kind: str) -> None:
    """Numbers without a unit stay without, and are not written as percentages."""
    metrics = {"share": Metric(value=50.0, unit="%"), "rank": Metric(value=81.234567, unit="")}
    (table,) = _tables(make_result(kind=kind, metrics=metrics, headline="rank"))
    assert table.columns == ["share (%)", "rank"]
    assert table.headline_column == 1
    assert _texts(table) == [["50.00", "81.23"]]


def test_numbers_of_the_papers_tables_are_not_repeated(make_result: MakeResult) -> None:
    """They stand where the paper prints them; other sources' stand beside ours."""
    (table,) = _tables(make_result())
    assert [(row.name, row.cells[0]) for row in table.published if row.name == "BYOL"] == [
        ("BYOL", "92.58")
    ]
    assert all(not row.source.startswith("RSA,") for row in table.published)


def test_summary_names_the_best_of_each_table(
    make_trial: MakeResult, make_result: MakeResult
) -> None:
    """The highest mean, not the highest single trial; diagnostics have no best.

    Random weights are no model to choose, even where they are ahead.
    """
    records = [
        make_trial(RSA, seed=seed, values={"top1": top1}) for seed, top1 in ((0, 90.0), (1, 94.0))
    ]
    records.append(make_trial(BYOL, values={"top1": 93.0}))
    records.append(make_trial(RSA, kind="diagnostics"))
    records.append(make_result(random_init=True, values={"top1": 95.0}))
    tables = _tables(*records)
    best = find_best(tables)
    assert [(item.row.name, item.num_models) for item in best] == [("BYOL AA", 2)]
    extent = describe_extent(tables, len(records), 1)
    assert extent == "5 records of 3 models on CIFAR-10 and 1 training run."


def test_coverage_counts_what_cannot_be_measured() -> None:
    """Tables 4 to 6 quote 7 + 24 + 24 numbers of methods that are not implemented."""
    assert describe_coverage(build_paper_tables([])) == (
        "0 of the paper’s 188 numbers are measured here; 55 are of methods not implemented here."
    )


def test_models_are_named_as_in_table_1(make_trial: MakeResult, make_result: MakeResult) -> None:
    """Rows of one method differ in name, and one epoch is no plural."""
    changes = (BYOL,), (BYOL, "method.views=AW"), (RSA,), (RSA, "method.beta_mode=fixed")
    records = [make_trial(*words) for words in changes]
    (table,) = _tables(*records, make_result(random_init=True))
    names = ["BYOL AA", "BYOL AW", "RSA decay", "RSA fixed", "random weights"]
    assert [row.name for row in table.rows] == names
    (table,) = _tables(make_trial(RSA, "training.epochs=1"))
    assert " · 1 epoch on CIFAR-10 · " in table.rows[0].detail


def test_a_warning_about_any_trial_marks_the_row(make_trial: MakeResult) -> None:
    """Departures are shared by all trials; a warning may concern the second alone."""
    first, second = (
        make_trial(RSA, seed=seed, deviations=["mode cached"], **warned)
        for seed, warned in enumerate(({}, {"details": {"warnings": ["did not converge"]}}))
    )
    (table,) = _tables(first, make_trial(BYOL, deviations=["mode cached"]), second)
    assert table.footnotes == ("mode cached", "did not converge")
    assert [row.marks for row in table.rows] == [(1, 2), (1,)]
