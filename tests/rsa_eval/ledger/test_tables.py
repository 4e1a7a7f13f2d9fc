from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.record import Record, write_record

AddTrial = Callable[..., None]
Draw = Callable[[], str]
LinesOf = Callable[[str, str], list[list[str]]]

RSA, ROW = "cifar10/rsa_200ep.yaml", "table2/cifar10/rsa-200ep"


def test_seeds_hours_and_machine_stand_beside_the_number(
    draw: Draw, add_trial: AddTrial, lines_of: LinesOf
) -> None:
    """100 steps of 256 images at 64 images/s are 0.11 h, the evaluation is the record's."""
    for seed, top1 in enumerate((92.0, 92.2)):
        add_trial(ROW, RSA, seed=seed, values={"top1": top1}, seconds=360.0)
    ((name, *_, published, ours, hours, hardware, command),) = lines_of(draw(), ROW)
    assert name == "[RSA](" + name.partition("(")[2]
    assert name.endswith("configs/pretrain/cifar10/rsa_200ep.yaml)")
    assert published == "92.3 ± 0.1"
    assert ours == "**92.10 ± 0.14** (seed 0: 92.00, seed 1: 92.20)"
    assert hours == "0.11 + 0.10"
    assert hardware == "a GPU; a processor"
    assert command == f"`rsa-pretrain reproduce {ROW} --seeds 0,1 data.root=data`"


def test_tables_that_show_the_same_run_share_its_record(
    draw: Draw, add_trial: AddTrial, lines_of: LinesOf
) -> None:
    """BYOL on CIFAR-10 stands in Tables 1 and 2."""
    add_trial("table1/cifar10/byol-aa", "cifar10/byol_200ep.yaml", values={"top1": 90.0})
    page = draw()
    assert "2 are measured" in page
    for row in ("table1/cifar10/byol-aa", "table2/cifar10/byol-200ep"):
        assert lines_of(page, row)[0][5] == "**90.00** (seed 0)"


def test_departures_are_footnotes(draw: Draw, add_trial: AddTrial, lines_of: LinesOf) -> None:
    """Of pretraining and of the evaluation, below the table."""
    add_trial(ROW, RSA, "training.global_batch_size=64", deviations=["mode cached"])
    page = draw()
    assert lines_of(page, ROW)[0][5] == "**91.25** [1] [2] (seed 0)"
    table = page.partition("### Table 2")[2].partition("### Table 3")[0]
    assert "- [1] mode cached\n" in table
    assert r"- [2] pretraining: training.global\_batch\_size 64 (paper: 256)" in table


def test_detectors_have_boxes_and_masks(
    tmp_path: Path, draw: Draw, make_trial: Callable[..., Record], lines_of: LinesOf
) -> None:
    """AP, AP50 and AP75 of both; a gap stays a gap, and the log of a detector tells no hours."""
    values = {"bbox_AP": 40.0, "bbox_AP50": 60.0, "bbox_AP75": 44.0, "segm_AP": 36.5}
    record = make_trial(
        "imagenet/rsa_200ep.yaml",
        kind="detection",
        data_set="coco",
        protocol="mask_rcnn_R_50_FPN_2x",
        values=values,
        headline="segm_AP",
    )
    write_record(record, tmp_path / "results/table6/coco/rsa/seed-0/records/detection.json")
    page = draw()
    (line,) = lines_of(page, "table6/coco/rsa")
    assert line[1:5] == [
        "42.7, 62.9, 47.1",
        "**40.00, 60.00, 44.00**",
        "38.5, 60.0, 41.4",
        "**36.50, –, –**",
    ]
    assert line[5:7] == ["– + 0.00", "a processor"]
    (other,) = lines_of(page, "table5/coco/rsa")
    assert other[2] == other[4] == "not yet measured"
    assert "| InstDis | 38.8, 58.4, 42.5 | – | 35.2, 55.8, 37.8 | – |" in page


def test_detectors_of_two_engines_are_two_numbers(
    tmp_path: Path, draw: Draw, make_trial: Callable[..., Record], lines_of: LinesOf
) -> None:
    """Their seeds are averaged each for itself, and each number names its engine."""
    for seed, (engine, ap) in enumerate(
        (("torchvision", 40.0), ("torchvision", 42.0), ("detectron2", 50.0))
    ):
        record = make_trial(
            "imagenet/rsa_200ep.yaml",
            seed=seed,
            kind="detection",
            data_set="coco",
            protocol="mask_rcnn_R_50_FPN_2x",
            values={"bbox_AP": ap},
            config={"seed": seed, "engine": engine},
        )
        home = tmp_path / f"results/table6/coco/rsa/seed-{seed}"
        write_record(record, home / "records/detection.json")
    (line,) = lines_of(draw(), "table6/coco/rsa")
    assert line[2] == "**41.00 ± 1.41, –, –** (torchvision)<br>**50.00, –, –** (detectron2)"


def test_times_are_relative_to_byol(draw: Draw, add_trial: AddTrial, lines_of: LinesOf) -> None:
    """Table 7: RSA at 0.8 of BYOL's rate takes 1.25 of its time, whatever other rows took."""
    add_trial("table2/cifar100/byol-800ep", "cifar100/byol_800ep.yaml", rate=64.0)
    add_trial("table2/cifar100/rsa-800ep", "cifar100/rsa_800ep.yaml", rate=51.2)
    add_trial("table1/cifar100/byol-aw", "cifar100/byol_aw_200ep.yaml", rate=8.0)
    table = draw().partition("### Table 7")[2].partition("### Table 8")[0]
    ((label, *rsa, _),) = lines_of(table, "table7/cifar100/rsa")
    assert label.startswith("[RSA](")
    assert rsa == ["CIFAR-100", "800", "11.5 h", "1.02", "0.14 h for 1 epochs", "1.25", "a GPU"]
    assert lines_of(table, "table7/cifar100/byol")[0][5:7] == ["0.11 h for 1 epochs", "1.00"]
    ((*_, hours, relative, machine, _),) = lines_of(table, "table7/stl10/rsa")
    assert (hours, relative, machine) == ("not yet measured", "not yet measured", "–")


@pytest.mark.parametrize(
    ("row", "command"),
    [
        ("table1/cifar10/rsa-decay", "rsa-pretrain reproduce table1/cifar10/rsa-decay "),
        (
            "table4/imagenet/rsa-200ep",
            "torchrun --nproc-per-node=8 -m rsa_pretrain reproduce table4/imagenet/rsa-200ep "
            "data.root=data/imagenet",
        ),
        ("table5/coco/random-init", "rsa-pretrain reproduce table5/coco/random-init"),
    ],
)
def test_commands_run_a_row_as_its_recipe_runs(
    draw: Draw, lines_of: LinesOf, row: str, command: str
) -> None:
    """As many processes, the same place of the data."""
    assert lines_of(draw(), row)[0][-1].startswith(f"`{command}")
