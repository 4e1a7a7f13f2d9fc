from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from recipe_trees import recipe_tree

from rsa_eval.paper.detection_recipes import RECIPE_FINGERPRINTS
from rsa_eval.paper.published import PAPER_DATA_SETS
from rsa_eval.paper.rows import PaperRow, Pretraining, find_rows
from rsa_eval.records.groups import Group, group_records
from rsa_eval.records.record import Record
from rsa_eval.report.paper_tables import PaperTable, build_paper_tables

MakeTrial = Callable[..., Record]
ROWS = [row for row in find_rows() if row.table in (1, 2, 3, 4, 8)]
RUNS = {row.name: row for row in ROWS if row.work is not None and row.home == row.name}
RSA = "cifar10/rsa"


def _groups(*records: Record) -> list[Group]:
    return group_records([(Path(f"{n}.json"), record) for n, record in enumerate(records)])


def _filled(tables: Sequence[PaperTable]) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    return [
        (table.number, row.labels, column)
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell is not None and cell.ours
    ]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_fills_the_cells_of_its_rows_and_no_other(name: str, make_trial: MakeTrial) -> None:
    """Those of all rows made alike, without a departure from the paper."""
    work = RUNS[name].work
    assert isinstance(work, Pretraining)
    tables = build_paper_tables(_groups(make_trial(*map(str, work.configs), *work.settings)))
    assert [table.footnotes for table in tables] == [()] * len(tables)
    found = {
        (table.number, row.labels[0], column, cell.published.text.replace("±", " ± "))
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell is not None and cell.ours
    }
    assert found == {_cell(row) for row in ROWS if row.home == name}


def _cell(row: PaperRow) -> tuple[int | None, str, tuple[str, ...], str | None]:
    data_set, epochs = PAPER_DATA_SETS[row.data_set], f"{row.epochs} ep"
    columns = {2: (data_set, epochs), 3: (epochs,), 4: ("Top-1 linear",)}
    label = row.label.partition(" ")[0] if row.table == 1 else row.label
    return row.table, label, columns.get(row.table or 0, (data_set,)), row.published


def test_seeds_are_one_number_in_the_cell(make_trial: MakeTrial) -> None:
    """Three trials stand as mean ± standard deviation, each of them listed below."""
    trials = [
        make_trial(RSA, seed=seed, values={"top1": top1})
        for seed, top1 in enumerate((92.0, 92.2, 92.4))
    ]
    table = build_paper_tables(_groups(*trials))[1]
    (cell,) = (cell for row in table.rows for cell in row.cells if cell and cell.ours)
    assert [ours.statistic.text for ours in cell.ours] == ["92.20 ± 0.20"]
    assert table.trials == [("RSA, CIFAR-10 200 ep", "seed 0: 92.00, seed 1: 92.20, seed 2: 92.40")]


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["method.beta_base=0.2"], {}),
        (["method.beta_mode=fixed"], {}),
        (["training.epochs=199"], {}),
        (["training.epochs=6", "data.num_train_images=10000"], {}),
        (["backbone.arch=resnet34"], {}),
        ([], {"epochs": 150.0}),
        ([], {"data_set": "stl10"}),
        ([], {"kind": "knn"}),
        ([], {"protocol": "mean_shift"}),
        ([], {"pretraining": False}),
    ],
)
def test_other_weights_or_evaluations_fill_no_cell(
    make_trial: MakeTrial, words: list[str], changes: dict[str, object]
) -> None:
    """Another weight of pairs, length, network, data, evaluator or protocol; or not recorded."""
    assert _filled(build_paper_tables(_groups(make_trial(RSA, *words, **changes)))) == []


def test_a_checkpoint_on_the_way_is_not_the_shorter_run(make_trial: MakeTrial) -> None:
    """At epoch 200 of 800 neither the rate nor beta has come down."""
    record = make_trial(RSA, "training.epochs=800", epochs=200.0)
    assert _filled(build_paper_tables(_groups(record))) == []


def test_an_extended_run_is_not_the_papers(
    make_trial: MakeTrial, extending: Callable[..., list[str]]
) -> None:
    """100 epochs and 100 more are not the schedule of 200."""
    assert _filled(build_paper_tables(_groups(make_trial(RSA, *extending(100))))) == []


@pytest.mark.parametrize("noted", [False, True])
def test_a_run_with_other_speed_settings_fills_its_cell_with_a_note(
    make_trial: MakeTrial, noted: bool
) -> None:
    """One footnote per setting, whether or not the record has it too."""
    notes = (
        "pretraining: views.implementation batched (recipe: pillow)",
        "pretraining: training.precision bf16 (recipe: fp32)",
    )
    words = ["views.implementation=batched", "training.precision=bf16", "training.compile=true"]
    fast = make_trial(RSA, *words, deviations=[*notes] if noted else [])
    table = build_paper_tables(_groups(fast))[1]
    assert table.footnotes == notes
    (where,) = _filled([table])
    assert where[1:] == (("RSA",), ("CIFAR-10", "200 ep"))


def test_departures_are_footnotes_of_their_cell(make_trial: MakeTrial) -> None:
    """Departures of evaluation and pretraining are listed."""
    words = [
        "training.global_batch_size=64",
        "data.num_train_images=3200",
        "backbone.stem=standard",
        "monitor.knn_every_epochs=10",
    ]
    odd = make_trial(RSA, *words, deviations=["mode cached (protocol: online)"])
    table = build_paper_tables(_groups(odd, make_trial("cifar10/byol")))[1]
    assert table.footnotes == (
        "mode cached (protocol: online)",
        "pretraining: data.num_train_images 3200 (recipe: all)",
        "pretraining: backbone.stem standard (recipe: cifar)",
        "pretraining: training.global_batch_size 64 (recipe: 256)",
        "pretraining: monitor.knn_every_epochs 10 (recipe: not set)",
    )
    marks = {
        row.labels: ours.marks
        for row in table.rows
        for cell in row.cells
        for ours in (cell.ours if cell else ())
    }
    assert marks == {("RSA",): (1, 2, 3, 4, 5), ("BYOL",): ()}


def test_two_numbers_of_one_cell_stand_apart(make_trial: MakeTrial) -> None:
    """Runs that differ in more than seeds are not averaged; what keeps to the paper is first."""
    odd = make_trial(RSA, "optimizer.base_lr=0.2", values={"top1": 93.0})
    plain = make_trial(RSA, values={"top1": 92.0})
    table = build_paper_tables(_groups(odd, plain))[1]
    (cell,) = (cell for row in table.rows for cell in row.cells if cell and cell.ours)
    assert [ours.statistic.mean for ours in cell.ours] == [92.0, 93.0]
    assert [ours.marks for ours in cell.ours] == [(), (1,)]


DETECTION = {"bbox_AP": 40.0, "bbox_AP50": 60.0, "bbox_AP75": 44.0, "segm_AP": 36.5}
ON_VAL2017 = {"kind": "detection", "data_set": "coco", "num_samples": 5_000, "values": DETECTION}


def test_detection_rows_by_schedule_and_weights(
    make_trial: MakeTrial, make_result: MakeTrial
) -> None:
    """RSA's schedule and random weights at InfoMin's rate; a gap stays a gap."""
    common = {**ON_VAL2017, "headline": "segm_AP"}
    words = ("imagenet/rsa", "training.epochs=200", "optimizer.base_lr=0.6")
    one, two = "mask_rcnn_R_50_FPN_1x", "infomin_mask_rcnn_R_50_FPN_2x"
    random = make_result(random_init=True, protocol=two, config=recipe_tree(two), **common)
    backbone = random.model.backbone.model_copy(update={"arch": "resnet50"})
    model = random.model.model_copy(update={"backbone": backbone})
    records = [
        make_trial(*words, protocol=one, config=recipe_tree(one), **common),
        make_trial(*words, protocol="toy_shapes", config=recipe_tree("toy_shapes"), **common),
        random.model_copy(update={"model": model}),
    ]
    filled = _filled(build_paper_tables(_groups(*records)))
    columns = [("Object detection", name) for name in ("AP", "AP50", "AP75")]
    columns.append(("Instance segmentation", "AP"))
    assert filled == [
        *((5, ("RSA",), column) for column in columns),
        *((6, ("random init.",), column) for column in columns),
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mask_rcnn_R_50_FPN_2x", ["solver.base_lr=0.02"]),
        ("mask_rcnn_R_50_FPN_2x", ["solver.batch_size=8"]),
        ("infomin_mask_rcnn_R_50_FPN_2x", []),
        (None, []),
    ],
)
def test_detectors_of_another_recipe_fill_no_cell(
    make_trial: MakeTrial, name: str | None, words: list[str]
) -> None:
    """RSA's 2x row is at rate 0.03 and batch 16: its name with other settings is not enough."""
    record = make_trial(
        *("imagenet/rsa", "training.epochs=200", "optimizer.base_lr=0.6"),
        **ON_VAL2017,
        protocol=name or "mask_rcnn_R_50_FPN_2x",
        config={"seed": 0} if name is None else recipe_tree(name, *words),
    )
    assert _filled(build_paper_tables(_groups(record))) == []


def test_detectors_on_fewer_images_fill_no_cell(make_trial: MakeTrial) -> None:
    """The paper's are tested on all 5,000 of val2017."""
    name = "mask_rcnn_R_50_FPN_1x"
    words = ("imagenet/rsa", "training.epochs=200", "optimizer.base_lr=0.6")
    common = {**ON_VAL2017, "protocol": name, "config": recipe_tree(name)}
    for num_samples, is_filled in ((5_000, True), (44, False)):
        record = make_trial(*words, **common | {"num_samples": num_samples})
        assert bool(_filled(build_paper_tables(_groups(record)))) == is_filled


def test_the_recipes_of_detectors_are_stated(make_trial: MakeTrial) -> None:
    """Table 6 prints two; each cell knows its own, and our trials name theirs."""
    record = make_trial(
        *("imagenet/rsa", "training.epochs=200", "optimizer.base_lr=0.6"),
        **ON_VAL2017,
        protocol="mask_rcnn_R_50_FPN_2x",
        config=recipe_tree("mask_rcnn_R_50_FPN_2x"),
    )
    tables = {table.number: table for table in build_paper_tables(_groups(record))}
    found = {
        (number, row.labels[0] == "RSA"): cell.recipe
        for number in (4, 5, 6)
        for row in tables[number].rows
        for cell in row.cells
        if cell is not None
    }
    fingerprints = RECIPE_FINGERPRINTS
    assert found == {
        **dict.fromkeys([(4, False), (4, True)], ""),
        **dict.fromkeys([(5, False), (5, True)], fingerprints["mask_rcnn_R_50_FPN_1x"]),
        (6, True): fingerprints["mask_rcnn_R_50_FPN_2x"],
        (6, False): fingerprints["infomin_mask_rcnn_R_50_FPN_2x"],
    }
    rsa = f"RSA, mask_rcnn_R_50_FPN_2x [{fingerprints['mask_rcnn_R_50_FPN_2x']}]"
    assert [where for where, _ in tables[6].trials] == [rsa]


def test_layout_is_the_papers() -> None:
    """Rows and columns of each table, and nothing of ours without a record."""
    tables = {table.number: table for table in build_paper_tables([])}
    shapes = {
        number: (len(table.rows), len(table.columns), len(table.label_heads))
        for number, table in tables.items()
    }
    assert shapes == {
        1: (4, 5, 3),
        2: (5, 8, 1),
        3: (5, 2, 2),
        4: (16, 1, 4),
        5: (8, 6, 1),
        6: (8, 6, 1),
        8: (2, 3, 1),
    }
    assert tables[2].column_groups == [
        (name, 2) for name in ("CIFAR-10", "CIFAR-100", "STL-10", "Tiny ImageNet")
    ]
    assert sum(table.num_ours for table in tables.values()) == 0
