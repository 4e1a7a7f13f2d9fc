from collections.abc import Callable
from pathlib import Path

import numpy as np

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.groups import group_records
from rsa_eval.records.predictions import file_of
from rsa_eval.records.record import MetricInterval, Record, read_record, write_record
from rsa_eval.report.inputs import collect
from rsa_eval.report.learning import describe_learning
from rsa_eval.report.matrix import build_matrix
from rsa_eval.report.tables import build_tables
from rsa_eval.report.write import write_report
from rsa_eval.statistics.intervals import t_interval, wilson
from rsa_eval.statistics.paired import mcnemar

MakeResult = Callable[..., Record]


def _write(folder: Path, record: Record, right: list[int] | None) -> None:
    path, content = folder / "records" / "knn.json", None
    if right is not None:
        ranks = np.where(np.array(right) > 0, 0, 9)[None]
        kept = ClassPredictions(np.zeros(len(right), int), ranks, ranks, ("",), 10)
        entry, content = file_of([str(number) for number in range(len(right))], kept, path)
        own = wilson(sum(right), len(right))
        interval = MetricInterval(low=own.low, high=own.high, method="Wilson")
        top1 = {"value": 100 * sum(right) / len(right), "interval": interval}
        metrics = {"top1": record.metrics["top1"].model_copy(update=top1)}
        record = record.model_copy(update={"predictions": entry, "metrics": metrics})
    write_record(record, path, content)


def _three_models(tmp_path: Path, make_result: MakeResult, *, kept: bool = True) -> Path:
    """Random weights, and two models of which one is far better than the others."""
    for name, count, random_init in (("a", 90, False), ("b", 41, False), ("random", 40, True)):
        record = make_result(kind="knn", random_init=random_init, values={"top1": float(count)})
        if not random_init:
            model = record.model.model_copy(update={"sha256": name})
            record = record.model_copy(update={"model": model})
        _write(tmp_path / name, record, [1] * count + [0] * (100 - count) if kept else None)
    return tmp_path


def test_pairs_by_hand(tmp_path: Path, make_result: MakeResult) -> None:
    """Each pair stands twice with opposite signs; p-values are adjusted for all three pairs."""
    inputs = collect([_three_models(tmp_path, make_result)])
    (table,) = build_tables(group_records(inputs.records))
    matrix = build_matrix(table)
    assert matrix is not None
    texts = [["" if cell is None else cell.text for cell in row.cells] for row in matrix.rows]
    assert texts == [
        ["", "+49.00†", "+50.00†"],
        ["−49.00†", "", "+1.00"],
        ["−50.00†", "−1.00", ""],
    ]
    assert mcnemar(50, 0) < 0.0001
    cell = matrix.rows[1].cells[2]
    assert cell is not None
    assert "McNemar's exact test, adjusted p 1.0000" in cell.evidence
    turned = matrix.rows[2].cells[1]
    assert turned is not None
    assert turned.evidence != cell.evidence


def test_seeds_have_a_mark_of_their_own(tmp_path: Path, make_result: MakeResult) -> None:
    """Where both models have several seeds, a difference is shown for seeds, too."""
    for arch, level in (("resnet18", 70), ("resnet50", 30)):
        for seed in range(4):
            record = make_result(kind="knn", random_init=True, seeds=[seed], values={"top1": 1.0})
            backbone = record.model.backbone.model_copy(update={"arch": arch})
            model = record.model.model_copy(update={"backbone": backbone})
            record = record.model_copy(update={"model": model})
            count = level + seed
            _write(tmp_path / arch / f"seed-{seed}", record, [1] * count + [0] * (100 - count))
    (table,) = build_tables(group_records(collect([tmp_path]).records))
    matrix = build_matrix(table)
    assert matrix is not None
    assert [[cell.text for cell in row.cells if cell] for row in matrix.rows] == [
        ["+40.00*"],
        ["−40.00*"],
    ]


def test_the_page_and_the_markdown_show_it(tmp_path: Path, make_result: MakeResult) -> None:
    """Numbers to sort by, and a mark only where the difference is shown."""
    folder = _three_models(tmp_path / "runs", make_result)
    write_report([folder], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<table class="sortable">' in page.partition("Which differences are shown?")[2]
    assert 'data-value="49.0"' in page
    assert "+49.00†" in page
    assert "+1.00†" not in page
    assert "90.0 [82.6, 94.5]" in page
    markdown = (tmp_path / "report.md").read_text()
    assert "| −49.00† |  | +1.00 |" in markdown
    assert "| 90.0 [82.6, 94.5] |" in markdown


def test_models_are_sorted_by_whether_they_learned(tmp_path: Path, make_result: MakeResult) -> None:
    """Above random weights and the control, with intervals apart or not, or not shown above."""
    counts = {"clear": 90, "close": 55, "idle": 45, "control": 42, "random": 40}
    for name, count in counts.items():
        record = make_result(
            kind="knn", random_init=name == "random", values={"top1": float(count)}
        )
        if name != "random":
            rate = 1e-9 if name == "control" else count / 100
            settings = {"optimizer": {"base_lr": rate}}
            update = {"sha256": name, "pretraining": settings}
            record = record.model_copy(update={"model": record.model.model_copy(update=update)})
        _write(tmp_path / name, record, [1] * count + [0] * (100 - count))
    records = collect([tmp_path]).records
    (table,) = build_tables(group_records(records))
    assert describe_learning(table, build_matrix(table)) == (
        "Above random weights and the control, and their 95 % intervals apart: RSA (90.0 [82.6, "
        "94.5]). Above both, though intervals overlap: RSA (55.0 [45.2, 64.4]). Not shown to be "
        "above both: RSA (45.0 [35.6, 54.8])."
    )
    assert "RSA, control" in [row.name for row in table.rows]
    write_report([tmp_path], tmp_path / "out/report.html")
    for page in ("report.html", "report.md"):
        assert "intervals apart: RSA" in (tmp_path / "out" / page).read_text()
    again = read_record(tmp_path / "clear/records/knn.json")
    model = again.model.model_copy(update={"sha256": "again"})
    again = again.model_copy(update={"model": model, "seeds": [1]})
    _write(tmp_path / "again", again, [1] * 92 + [0] * 8)
    (table,) = build_tables(group_records(collect([tmp_path]).records))
    text = describe_learning(table, build_matrix(table))
    assert "intervals apart: RSA (91.00 ± 1.41). Above both" in text
    assert text.endswith("A single seed is judged over the test images alone.")
    without = [(path, record) for path, record in records if path.parts[-3] != "control"]
    (table,) = build_tables(group_records(without))
    assert describe_learning(table, build_matrix(table)) == ""


def test_why_nothing_is_compared(tmp_path: Path, make_result: MakeResult) -> None:
    """Older records, and answers to other images, are named as the reason."""
    folder = _three_models(tmp_path / "old", make_result, kept=False)
    (table,) = build_tables(group_records(collect([folder]).records))
    matrix = build_matrix(table)
    assert matrix is not None
    assert not matrix.rows
    assert "keep no answers by image" in matrix.reason
    other = _three_models(tmp_path / "new", make_result)
    record = read_record(other / "b/records/knn.json")
    _write(other / "b", record, [1] * 50)
    write_report([other], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Not all models are compared pair by pair" in page
    assert "have different test images: 100 and 50 images" in page


def test_both_sources_of_variation_are_shown_apart(tmp_path: Path, make_result: MakeResult) -> None:
    """Several seeds have a deviation, an interval over seeds and one over images."""
    counts = (70, 74, 81)
    for seed, count in enumerate(counts):
        record = make_result(kind="knn", random_init=True, seeds=[seed], values={"top1": 1.0})
        _write(tmp_path / f"seed-{seed}", record, [1] * count + [0] * (100 - count))
    inputs = collect([tmp_path])
    (table,) = build_tables(group_records(inputs.records))
    headline = table.rows[0].headline
    assert headline is not None
    assert headline.text == "75.00 ± 5.57"
    seeds = t_interval(counts)
    assert seeds is not None
    assert headline.over_seeds_text == f"[{seeds.low:.1f}, {seeds.high:.1f}]"
    lows = np.mean([wilson(count, 100).low for count in counts])
    assert headline.over_images is not None
    assert headline.over_images.low == lows
    write_report([tmp_path], tmp_path / "out/report.html")
    page = (tmp_path / "out/report.html").read_text()
    assert f"seeds {headline.over_seeds_text}<br>images {headline.over_images_text}" in page
    csv = (tmp_path / "out/report.csv").read_text()
    assert f",{lows}," in csv
