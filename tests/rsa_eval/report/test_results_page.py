from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipe_trees import recipe_tree

from rsa_eval.__main__ import main
from rsa_eval.records.record import Record, write_record
from rsa_eval.report.inputs import collect
from rsa_eval.report.results_page import render_page

MakeTrial = Callable[..., Record]
WriteLog = Callable[..., None]
RSA = "cifar10/rsa"
NOTES = "# Ours\n\nBefore.\n\n<!-- study -->\n\nBetween.\n\n<!-- paper -->\n\nBehind | it.\n"


def _page(folder: Path, notes: str = NOTES) -> str:
    path = folder / "notes.md"
    path.write_text(notes)
    return render_page(collect([folder / "results"]), [folder / "results"], path)


def _section(page: str, title: str) -> list[str]:
    return page.partition(f"### {title}\n")[2].partition("\n### ")[0].splitlines()


def test_measured_rows_stand_in_their_table_and_the_rest_in_one_line(
    tmp_path: Path, make_trial: MakeTrial
) -> None:
    """Of Table 2's 40 numbers two seeds are one; a row without a number of ours is not shown."""
    for seed, top1 in enumerate((92.0, 92.4)):
        record = make_trial(RSA, seed=seed, values={"top1": top1}, deviations=["mode cached"])
        write_record(record, tmp_path / f"results/rsa/seed-{seed}/records/linear.json")
    page = _page(tmp_path)
    table = _section(page, "Table 2")
    rows = [line for line in table if line.startswith("| ")]
    assert rows[2:] == [
        "| RSA | **92.20 ± 0.28** [1], 92.3 ± 0.1 | 93.7 | 68.1 ± 0.5 | 70.4 | 93.1 ± 0.2 | 94.0 "
        "| 54.8 ± 0.4 | 55.5 |"
    ]
    assert "- [1] mode cached" in table
    assert r"- RSA, CIFAR-10 200 ep \[1\]: seed 0: 92.00, seed 1: 92.40" in table
    assert table[-1] == "Not yet measured: 39 of 40 numbers."
    quoted = "Not yet measured: 9 of 9 numbers; 7 more are of methods not implemented here."
    assert _section(page, "Table 4")[-1] == quoted
    assert page == _page(tmp_path)


def test_the_study_stands_at_its_marker_and_all_else_behind_the_papers_tables(
    tmp_path: Path, make_trial: MakeTrial, write_log: WriteLog
) -> None:
    """By folder; prose stays as it is, and a run that is no row of the paper is not lost."""
    for folder, top1 in (("study/rsa", 40.0), ("other/rsa", 88.0)):
        record = make_trial(RSA, "training.epochs=50", values={"top1": top1})
        write_record(record, tmp_path / f"results/{folder}/seed-0/records/linear.json")
    lines = [{"step": 1, "epoch": 1.0, "images_per_second": 64.0}]
    write_log(tmp_path / "results/study/rsa/seed-0", RSA, lines=lines, machines=("a | GPU",))
    page = _page(tmp_path)
    parts = ("Before.", "| 40.00 |", r"| a \| GPU | 1 |", "Between.", "### Table 8", "| 88.00 |")
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert [page.count(part) for part in parts[1:]] == [1] * 5
    assert page.endswith("\n\nBehind | it.\n")


def test_times_stand_beside_those_of_table_7(tmp_path: Path, write_log: WriteLog) -> None:
    """RSA at 0.8 of BYOL's rate takes 1.25 of its time; a subset of the images is no row."""
    for name, rate, words in (("byol", 64.0, ()), ("rsa", 51.2, ()), ("rsa", 80.0, ("subset",))):
        changes = ["data.num_train_images=500"] if words else []
        lines = [{"step": 100, "epoch": 1.0, "images_per_second": rate}]
        folder = tmp_path / "results" / "-".join([name, *words])
        write_log(folder, f"cifar100/{name}", *changes, lines=lines, machines=("a GPU",))
    page = _page(tmp_path)
    table = _section(page, "Table 7")
    assert "| rsa | RSA | CIFAR-100 | a GPU | 1 | 0.14 | 51.2 | 500.0 | 1.25 | 1.02 |" in table
    assert table[-1] == "Not yet measured: 4 of 6 rows."
    (subset,) = (line for line in page.splitlines() if line.startswith("| rsa-subset "))
    assert subset in _section(page, "Training time")


def test_detectors_of_two_engines_are_two_numbers(tmp_path: Path, make_trial: MakeTrial) -> None:
    """Seeds of one engine are averaged; a metric that was not measured stays the paper's alone."""
    for seed, (engine, ap) in enumerate(
        (("torchvision", 40), ("torchvision", 42), ("detectron2", 50))
    ):
        record = make_trial(
            "imagenet/rsa",
            "training.epochs=200",
            seed=seed,
            kind="detection",
            data_set="coco",
            num_samples=5_000,
            protocol="mask_rcnn_R_50_FPN_2x",
            values={"bbox_AP": ap},
            config=recipe_tree("mask_rcnn_R_50_FPN_2x", f"seed={seed}", f"engine={engine}"),
        )
        write_record(record, tmp_path / f"results/{seed}/records/detection.json")
    table = _section(_page(tmp_path), "Table 6")
    (row,) = (line for line in table if line.startswith("| RSA "))
    assert "**41.00 ± 1.41** [1], **50.00** [1], 42.7 | 62.9 |" in row
    quoted = "; 24 more are of methods not implemented here."
    assert table[-1] == f"Not yet measured: 23 of 24 numbers{quoted}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"<!-- study -->", b"", "has 0 lines '<!-- study -->'"),
        (b"Between.", b"<!-- paper -->", "has 2 lines '<!-- paper -->'"),
        (b"Between.", b"\xff", "it is not UTF-8 text"),
        (None, None, "No such file"),
    ],
)
def test_notes_without_a_place_for_the_tables_are_refused(
    tmp_path: Path,
    make_result: MakeTrial,
    capsys: pytest.CaptureFixture[str],
    old: bytes | None,
    new: Any,
    message: str,
) -> None:
    """Tables are neither lost nor doubled, and nothing is written."""
    write_record(make_result(), tmp_path / "results/records/a.json")
    if old is not None:
        (tmp_path / "notes.md").write_bytes(NOTES.encode().replace(old, new))
    words = ["--markdown", f"{tmp_path}/page.md", "--notes", f"{tmp_path}/notes.md"]
    assert main(["report", f"{tmp_path}/results", *words, "--out", f"{tmp_path}/page.html"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("page.*"))


def test_only_pages_of_this_command_are_replaced(
    tmp_path: Path, make_result: MakeTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page is overwritten; the notes and foreign files are not."""
    write_record(make_result(), tmp_path / "records/a.json")
    page, notes = tmp_path / "page.md", tmp_path / "notes.md"
    notes.write_text(NOTES)
    command = ["report", str(tmp_path), "--notes", str(notes), "--markdown"]
    assert [main([*command, str(page)]) for _ in range(2)] == [0, 0]
    assert "Behind | it." in page.read_text()
    capsys.readouterr()
    page.write_text("# By hand\n")
    for words, message in (
        ([*command, str(page)], "was not generated by this command"),
        ([*command, str(notes)], "was not generated by this command"),
        (["report", str(tmp_path), "--out", f"{tmp_path}/notes.html"], "was not generated"),
        (["report", str(tmp_path)], "nothing to write"),
        (["report", str(tmp_path), "--markdown", f"{tmp_path}/x.txt"], "should end in .md"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
    assert page.read_text() == "# By hand\n"
    assert notes.read_text() == NOTES
