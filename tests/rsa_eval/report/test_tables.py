import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipe_trees import recipe_tree

from rsa_eval.paper.detection_recipes import RECIPE_FINGERPRINTS
from rsa_eval.records.detection_recipe import recipe_fingerprint
from rsa_eval.records.groups import group_records
from rsa_eval.records.record import Metric, Record
from rsa_eval.report.csv_file import render_csv
from rsa_eval.report.paper_tables import build_paper_tables
from rsa_eval.report.record_pages import describe_record
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


@pytest.mark.parametrize(("split", "words"), [("train", "training"), ("test", "test")])
def test_rows_on_other_images_say_so_and_are_not_subtracted(
    make_result: MakeResult, split: str, words: str
) -> None:
    """Two folders of one published set share a table; its rows have the count and hash of each."""
    ours, same, other = (
        {"details": {"images": {split: {"count": 1437, "sha256": letter * 64}}}} for letter in "aab"
    )
    rows = [make_result(random_init=True, values={"top1": 40.0}, **own) for own in (same, other)]
    (table,) = _tables(make_result(values={"top1": 90.0}, **ours), *rows)
    assert [row.difference for row in table.rows] == [50, None, None]
    shown = [row.detail.split(" · ")[-1] for row in table.rows]
    assert shown == [f"1,437 {words} images ({letter * 8})" for letter in "aab"]
    (table,) = _tables(make_result(**ours), rows[0])
    assert not any("images (" in row.detail for row in table.rows)


@pytest.mark.parametrize("split", ["train", "test"])
def test_baselines_by_other_annotations_are_not_subtracted(
    make_result: MakeResult, split: str
) -> None:
    """Nor are those of another folder of VOC; of an older record they are unknown."""
    known = {"train": "aa", "test": "bb"}
    tree = recipe_tree("mask_rcnn_R_50_FPN_1x")
    ours = _detector(make_result, tree, details={"annotations_sha256": known})
    for details, text in (
        ({"annotations_sha256": known}, "+15.00"),
        ({}, "+15.00"),
        ({"annotations_sha256": known | {split: "cc"}}, ""),
    ):
        values = {"bbox_AP": 25.0}
        baseline = _detector(make_result, tree, random_init=True, details=details, values=values)
        (table,) = _tables(ours, baseline)
        assert [row.difference_text for row in table.rows] == [text, ""]


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


def _detector(make_result: MakeResult, tree: dict[str, Any], **changes: Any) -> Record:
    fields: dict[str, Any] = {"kind": "detection", "data_set": "coco", "protocol": tree["name"]}
    fields["num_samples"] = 5_000
    return make_result(**fields | {"config": tree, "values": {"bbox_AP": 40.0}} | changes)


def test_detectors_of_two_recipes_share_no_table(make_result: MakeResult) -> None:
    """Nor a baseline, a matrix or a best model; the changed one is visibly another."""
    name = "mask_rcnn_R_50_FPN_1x"
    plain, changed = recipe_tree(name), recipe_tree(name, "solver.base_lr=0.01")
    records = [
        _detector(make_result, tree, random_init=random_init, values={"bbox_AP": value})
        for tree, random_init, value in (
            (plain, False, 40.0),
            (changed, False, 44.0),
            (changed, True, 30.0),
        )
    ]
    tables = {table.recipe: table for table in _tables(*records)}
    ours, other = RECIPE_FINGERPRINTS[name], recipe_fingerprint(changed)
    assert tables.keys() == {ours, other}
    assert tables[ours].protocol == f"{name} [{ours}]"
    stated = f"{name} [{other}], other settings than the config's [{ours}]"
    assert tables[other or ""].protocol == stated
    assert [[row.difference_text for row in table.rows] for table in tables.values()] in (
        [[""], ["+14.00", ""]],
        [["+14.00", ""], [""]],
    )
    assert {best.num_models for best in find_best(list(tables.values()))} == {1}
    assert {table.recipe_mark for table in tables.values()} == {f" [{ours}]", f" [{other}]"}
    assert stated in describe_record(Path("x.json"), records[1]).facts["recipe"]
    lines = list(csv.DictReader(io.StringIO(render_csv(list(tables.values()), []))))
    found = {(line["mean"], line["recipe"]) for line in lines if line["source"] == "ours"}
    assert found == {("40.0", ours), ("44.0", other), ("30.0", other)}
    assert {line["recipe"] for line in lines if line["source"] != "ours"} == {ours}


def test_unknown_recipes_share_a_table_only_if_they_state_the_same(make_result: MakeResult) -> None:
    """Two records that lack a setting may differ in it, but nothing published is beside them."""
    name = "mask_rcnn_R_50_FPN_1x"
    trees = [recipe_tree(name, word) for word in ("seed=0", "seed=1", "solver.batch_size=8")]
    for tree in trees:
        del tree["solver"]["base_lr"]
    records = [_detector(make_result, tree, seeds=[n]) for n, tree in enumerate(trees)]
    tables = _tables(*records)
    assert sorted(len(row.group.records) for table in tables for row in table.rows) == [1, 2]
    assert [(table.protocol, table.recipe) for table in tables] == [
        (f"{name} [unknown recipe]", "unknown")
    ] * 2
    assert [table.published for table in tables] == [(), ()]


def test_published_detectors_stand_beside_their_own_recipe_alone(make_result: MakeResult) -> None:
    """InfoMin's baselines at rate 0.02, RSA's number at 0.03, none beside changed settings."""
    two = "mask_rcnn_R_50_FPN_2x"
    trees = [
        recipe_tree("mask_rcnn_R_50_FPN_1x"),
        recipe_tree("infomin_mask_rcnn_R_50_FPN_2x"),
        recipe_tree(two),
        recipe_tree(two, "model.box_head_num_fcs=2"),
        recipe_tree("toy_shapes"),
    ]
    tables = [_tables(_detector(make_result, tree))[0] for tree in trees]
    found = [[(row.name, row.cells) for row in table.published] for table in tables]
    assert [len(rows) for rows in found] == [8, 7, 1, 0, 0]
    assert found[2] == [("RSA", ("42.7",))]
    assert ("InfoMin Aug.", ("42.5",)) in found[1]
    assert ("RSA", ("41.1",)) in found[0]
    assert {row.source for row in tables[1].published} == {"RSA, Table 6, from InfoMin"}


def test_published_numbers_of_voc_stand_beside_those_by_its_rules(
    make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers by 11 points have no place beside COCO's rules, which leave those cells empty."""
    tree = recipe_tree("mask_rcnn_R_50_FPN_1x", "data.name=voc0712", "model.mask_head=false")
    fingerprint = recipe_fingerprint(tree)
    monkeypatch.setitem(RECIPE_FINGERPRINTS, "pascal_voc_R_50_C4_24k", fingerprint)
    values = {
        "bbox_AP": 55.0,
        "bbox_AP50": 80.0,
        "voc_AP": 56.0,
        "voc_AP50": 81.0,
        "voc_AP75": 62.0,
    }
    on_test2007 = {"data_set": "voc0712", "num_samples": 4_952}
    (table,) = _tables(_detector(make_result, tree, values=values, **on_test2007))
    assert table.data_set == "PASCAL VOC 07+12"
    assert table.metrics == tuple(values)
    (moco,) = (row for row in table.published if row.name == "MoCo")
    assert moco.cells == ("", "", "55.9", "81.5", "62.6")
    assert moco.detail == "voc-c4 24k, 200 epochs, AP by 11 points"
    assert all(row.cells[:2] == ("", "") for row in table.published)
    (older,) = _tables(_detector(make_result, tree, **on_test2007))
    assert older.published == ()


@pytest.mark.parametrize("num_samples", [44, 4_952])
def test_published_detectors_stand_beside_as_many_test_images(
    make_result: MakeResult, num_samples: int
) -> None:
    """A part of val2017, or another set under its name, is not what the papers tested."""
    tree = recipe_tree("mask_rcnn_R_50_FPN_1x")
    (table,) = _tables(_detector(make_result, tree, num_samples=num_samples))
    assert table.published == ()


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
