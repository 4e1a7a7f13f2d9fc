import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.record import Record, write_record
from rsa_eval.report import write_report
from rsa_eval.report_curves import draw_curves
from rsa_eval.report_tables import build_tables
from rsa_pretrain.errors import UserError

MakeResult = Callable[..., Record]


def _write_log(folder: Path, num_lines: int = 20) -> None:
    lines = [
        {"step": step, "loss": 2 - step / 100, "loss_weak": 1.0, "beta": 0.3, "lr": 0.1}
        for step in range(1, num_lines + 1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    (folder / "config.yaml").write_text("seed: 4711\n")


def _rows(page: str) -> list[str]:
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in page.split("<tr")]


def test_numbers_baseline_difference_and_published(tmp_path: Path, make_result: MakeResult) -> None:
    """The page and the Markdown hold the record's numbers, and the paper's beside them."""
    write_record(make_result(), tmp_path / "run/records/a.json")
    baseline = make_result(random_init=True, values={"top1": 40.5, "top5": 90.0})
    write_record(baseline, tmp_path / "random/records/a.json")
    assert write_report([tmp_path], tmp_path / "report.html") == []
    page = (tmp_path / "report.html").read_text()
    assert any("91.25 +50.75 99.50" in row for row in _rows(page))
    assert any("random init" in row and "40.50" in row for row in _rows(page))
    assert any("92.3 ± 0.1" in row and "RSA, Table 2, row RSA" in row for row in _rows(page))
    table = (tmp_path / "report.md").read_text()
    assert "| 91.25 | 99.50 | +50.75 |" in table
    assert "RSA (published) | 92.3 ± 0.1 |" in table


def test_missing_numbers_are_empty_cells(make_result: MakeResult) -> None:
    """A model without a metric another one has gets an empty cell, and no guessed difference."""
    (table,) = build_tables([make_result(), make_result(values={"top1": 80.0})])
    assert table.columns == ["top1 (%)", "top5 (%)"]
    assert [row.cells for row in table.rows] == [["91.25", "99.50"], ["80.00", ""]]
    assert [row.difference for row in table.rows] == ["", ""]


@pytest.mark.parametrize("change", [{"num_samples": 31}, {"deviations": ["mode cached"]}])
def test_unlike_baselines_are_not_subtracted(
    make_result: MakeResult, change: dict[str, object]
) -> None:
    """Random weights evaluated on other images or by other settings are no baseline."""
    baseline = make_result(random_init=True, values={"top1": 40.0}, **change)
    (table,) = build_tables([make_result(), baseline])
    assert [row.difference for row in table.rows] == ["", ""]


def test_difference_is_to_the_mean_of_the_baselines(make_result: MakeResult) -> None:
    """Two random seeds at 40 and 43 stand for 41.5."""
    baselines = [make_result(random_init=True, values={"top1": top1}) for top1 in (40.0, 43.0)]
    (table,) = build_tables([make_result(), *baselines])
    assert table.rows[0].difference == "+49.75"


def test_deviations_mark_their_row(make_result: MakeResult) -> None:
    """Each departure is one footnote, and each row points at its own."""
    records = [make_result(deviations=["a", "b"]), make_result(deviations=["b"]), make_result()]
    (table,) = build_tables(records)
    assert table.footnotes == ["a", "b"]
    assert [row.marks for row in table.rows] == [[1, 2], [2], []]


def test_one_table_per_data_set_evaluator_and_protocol(make_result: MakeResult) -> None:
    """Nothing is compared across them."""
    records = [
        make_result(data_set="digits"),
        make_result(),
        make_result(kind="knn", protocol="weighted_vote"),
    ]
    found = [(table.title, table.data_set) for table in build_tables(records)]
    assert found == [
        ("Nearest neighbours", "cifar10"),
        ("Linear probe", "cifar10"),
        ("Linear probe", "digits"),
    ]


def test_names_are_escaped(tmp_path: Path, make_result: MakeResult) -> None:
    """A data set, a run folder, a config and a metric cannot put markup into the page."""
    evil = "<script>alert(1)</script>"
    write_record(make_result(data_set=evil, deviations=[evil]), tmp_path / "a.json")
    run = tmp_path / "<b>run"
    _write_log(run)
    (run / "config.yaml").write_text(evil)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 21, f"loss_{evil}": 1.0}) + "\n")
    write_report([tmp_path / "a.json", run], tmp_path / "report.html")
    for suffix in (".html", ".md"):
        text = (tmp_path / f"report{suffix}").read_text()
        assert "<script" not in text
        assert "<b>run" not in text
        assert "alert(1)" in text.replace("\\", "")


def test_page_loads_nothing(tmp_path: Path, make_result: MakeResult) -> None:
    """No script, style sheet, image or font comes from outside the file."""
    write_record(make_result(), tmp_path / "runs/a/records/x.json")
    _write_log(tmp_path / "runs/a")
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:", page)
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|\bsrc=", page)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))
    assert page.count("<svg") == 3
    assert "4711" in page


def test_pictures_take_the_pages_colours() -> None:
    """Curves have no colour of their own, and one panel per kind of quantity."""
    metrics = [
        {"step": step, "loss": 1.0, "loss_aggressive": 0.5, "beta": 0.1, "ema_momentum": 0.99}
        for step in range(3)
    ]
    pictures = draw_curves(metrics)
    assert [picture.title for picture in pictures] == ["loss", "beta", "EMA momentum"]
    assert "var(--series-2)" in pictures[0].svg
    assert "var(--series-2)" not in pictures[1].svg
    colours = {
        colour for picture in pictures for colour in re.findall(r"#[0-9a-f]{6}\b", picture.svg)
    }
    assert colours <= {"#ffffff", "#000000"}


def test_values_that_cannot_be_drawn_are_left_out() -> None:
    """A NaN, a missing key or a log without any number does not stop the report."""
    assert draw_curves([]) == []
    pictures = draw_curves([{"step": 1, "loss": math.nan}, {"step": 2, "loss": 1.0}, {"step": 3}])
    assert [picture.title for picture in pictures] == ["loss"]


def test_corrupt_record_is_named_and_the_rest_reported(
    tmp_path: Path, make_result: MakeResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is written without it and says so; the command fails and says so."""
    write_record(make_result(), tmp_path / "records/good.json")
    (tmp_path / "records/bad.json").write_text("{")
    out = tmp_path / "report.html"
    assert main(["report", str(tmp_path), "--out", str(out)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if "bad.json" in line] == errors
    assert errors[0].startswith("error: ")
    page = out.read_text()
    assert "bad.json" in page
    assert "91.25" in page
    assert "bad.json" in out.with_suffix(".md").read_text().replace("\\", "")


def test_records_found_twice_count_once(tmp_path: Path, make_result: MakeResult) -> None:
    """A run and its parent folder given together do not double a row."""
    write_record(make_result(), tmp_path / "run/records/x.json")
    write_report([tmp_path, tmp_path / "run"], tmp_path / "out/report.html")
    assert (tmp_path / "out/report.md").read_text().count("91.25") == 1


def test_other_json_of_a_run_is_no_record(tmp_path: Path, make_result: MakeResult) -> None:
    """Predictions and annotations beside a run's log are not taken for damaged records."""
    _write_log(tmp_path / "run")
    (tmp_path / "run/predictions.json").write_text("[]")
    (tmp_path / "data/annotations").mkdir(parents=True)
    (tmp_path / "data/annotations/instances.json").write_text("{}")
    assert write_report([tmp_path / "run"], tmp_path / "report.html") == []
    assert write_report([tmp_path], tmp_path / "report.html") == []


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    """An empty or absent folder is named, and no page is written."""
    with pytest.raises(UserError, match="nothing to report"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="does not exist"):
        write_report([tmp_path / "absent"], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
