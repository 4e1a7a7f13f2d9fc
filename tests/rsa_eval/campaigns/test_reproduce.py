"""Whole rows by the command: made, stopped, resumed, refused."""

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rsa_eval.__main__ import main as rsa_eval
from rsa_eval.campaigns.campaign import keep_small_files, run_trials
from rsa_eval.campaigns.reproduction import plan_trial
from rsa_eval.paper.rows import Detection, PaperRow
from rsa_eval.records.record import Record, read_record
from rsa_eval.report.curves import draw_curves
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.weights.checkpoint import read_tensors

Reproduce = Callable[..., int]
Refusal = Callable[..., str]
Alarm = Callable[[int], None]

RSA = "study/imagefolder/rsa"
RANDOM = "study/imagefolder/random"
TIME_IS_UP = 142
RECORDS = ("knn", "logistic", "linear_cached")


def record(folder: Path, row: str, name: str) -> Record:
    """A kept record, seed 0."""
    return read_record(folder / "results" / row / "seed-0" / "records" / f"{name}.json")


def results_of(record: Record) -> tuple[Any, ...]:
    """The parts of a record that must not depend on stops or paths."""
    return record.metrics, record.details, record.deviations, record.seeds


@pytest.fixture
def refusal(reproduce: Reproduce, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a failing command and returns its error line."""

    def run(folder: Path, *words: str) -> str:
        assert reproduce(folder, *words) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ")
        return line

    return run


def test_a_row_is_made_whole_and_what_is_small_is_kept(made: Path) -> None:
    """Settings, log, machine, records and predictions are kept; weights and pictures are not."""
    kept = made / "results" / RSA / "seed-0"
    files = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    kinds = ("json", "predictions.npz")
    records = {f"records/{name}.{kind}" for name in RECORDS for kind in kinds}
    assert files == {"config.yaml", "metrics.jsonl", "machines.json", *records}
    run = made / "out" / RSA / "seed-0"
    assert (run / "backbone.safetensors").is_file()
    for name in files:
        assert (kept / name).read_bytes() == (run / name).read_bytes()
    random = made / "results" / RANDOM / "seed-0"
    assert {path.name for path in random.rglob("*.json")} == {f"{name}.json" for name in RECORDS}
    assert not list(made.rglob("results/**/*.safetensors"))


def test_evaluations_are_of_the_row_and_its_seed(made: Path) -> None:
    """The images are the recipe's; random weights are those of its network."""
    trained, random = (record(made, row, "linear_cached") for row in (RSA, RANDOM))
    assert trained.protocol == "moco_v2"
    assert trained.deviations
    assert trained.config["data"]["image_size"] == 16
    assert trained.num_samples == random.num_samples == 8
    assert trained.model.pretraining is not None
    assert trained.model.pretraining["method"]["beta_base"] == 0.3
    assert random.model.checkpoint is None
    assert random.model.backbone.zero_init_residual is False
    assert record(made, RSA, "knn").kind == "knn"


def test_a_report_reads_what_is_kept(made: Path, tmp_path: Path) -> None:
    """The kept folders are enough for a page with both rows and the curves."""
    page = tmp_path / "report.html"
    assert rsa_eval(["report", str(made / "results"), "--out", str(page)]) == 0
    with page.with_suffix(".csv").open(encoding="utf-8") as file:
        reported = {(line["files"], line["metric"]): line["mean"] for line in csv.DictReader(file)}
    for row in (RSA, RANDOM):
        for name in RECORDS:
            path = made / "results" / row / "seed-0" / "records" / f"{name}.json"
            value = record(made, row, name).metrics["top1"].value
            assert float(reported[str(path), "top1"]) == value
    log = made / "results" / RSA / "seed-0" / "metrics.jsonl"
    assert page.read_text().count("<svg") == len(draw_curves(read_metrics(log))) > 0


def test_a_finished_row_is_not_made_again(
    made: Path, fresh: Path, copied: Path, reproduce: Reproduce, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained or evaluated; what was kept elsewhere is kept here."""
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    assert reproduce(fresh, RSA, f"data.root={made / 'data'}") == 0
    assert "recorded: 1 of 1" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    assert results_of(record(fresh, RSA, "knn")) == results_of(record(made, RSA, "knn"))


def test_results_are_compared_with_what_a_row_expects(
    made: Path,
    fresh: Path,
    copied: Path,
    reproduce: Reproduce,
    refusal: Refusal,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The mean within the tolerance passes; outside it is an error that names the result."""
    value = record(made, RSA, "knn").metrics["top1"].value
    rows = (fresh / "rows.yaml").read_text().splitlines()

    def expect(text: str) -> list[str]:
        (fresh / "rows.yaml").write_text(
            "\n".join([rows[0].replace("}", f", expected: {{{text}}}}}"), *rows[1:]])
        )
        return [RSA, "--check", f"data.root={made / 'data'}"]

    assert reproduce(fresh, *expect(f"knn: {{value: {value + 2}, tolerance: 2.5}}")) == 0
    assert "as expected" in capsys.readouterr().out
    for text, message in (
        (
            f"knn: {{value: {value + 2}, tolerance: 1.5}}",
            f"1 of 1 results are outside their tolerance: knn of {RSA}",
        ),
        ("svm: {value: 1, tolerance: 1}", f"{RSA} expects a result of 'svm', which it does not"),
        ("knn: {value: 1, tolerance: 0}", "tolerance"),
    ):
        assert message in refusal(fresh, *expect(text))
    expect(f"knn: {{value: {value}, tolerance: 1}}")
    random = [RANDOM, "--check", f"data.root={made / 'data'}"]
    assert "no chosen row has expected results" in refusal(fresh, *random)
    assert "leave one out" in refusal(fresh, "--list", *random)


def test_a_row_stopped_twice_and_moved_ends_as_if_it_had_not_been(
    made: Path,
    fresh: Path,
    reproduce: Reproduce,
    alarm_in_training: Alarm,
    alarm_in_probe: Alarm,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The budget ends in pretraining, then in the probe, on two machines: the same numbers."""
    alarm_in_training(3)
    words = (RSA, f"data.root={fresh / 'data'}", "--budget-minutes", 60)
    assert reproduce(fresh, *words) == TIME_IS_UP
    said = capsys.readouterr().out
    assert said.startswith(f"stopped; 3 of 3 evaluations remain, first {RSA}/seed-0 (step 3 of 4)")
    assert not (fresh / "results").exists()

    (fresh / "data").rename(fresh / "elsewhere")
    shutil.copytree(fresh / "out", fresh / "copy")
    shutil.rmtree(fresh / "out")
    alarm_in_probe(5)
    words = (RSA, f"data.root={fresh / 'elsewhere'}", "--budget-minutes", 60)
    assert reproduce(fresh, *words, out="copy") == TIME_IS_UP
    left = f"stopped; 1 of 3 evaluations remain, first linear_cached of {RSA}/seed-0 (saved midway)"
    assert left in capsys.readouterr().out

    assert reproduce(fresh, *words, out="copy") == 0
    for name in RECORDS:
        assert results_of(record(fresh, RSA, name)) == results_of(record(made, RSA, name))
    ended, straight = (
        read_tensors(folder / RSA / "seed-0" / "backbone.safetensors")[0]
        for folder in (fresh / "copy", made / "out")
    )
    assert all(torch.equal(ended[name], straight[name]) for name in straight)


def test_a_run_of_two_tables_is_made_once(
    tmp_path: Path, reproduce: Reproduce, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the folder of the first; a seed that is named twice counts once."""
    rows = ("table2/cifar10/byol-200ep", "table1/cifar10/byol-aa")
    assert reproduce(tmp_path, *rows, "--budget-minutes", "1e-9", "--seeds", "4,4") == TIME_IS_UP
    left = "2 of 2 evaluations remain, first table1/cifar10/byol-aa/seed-4 (not started)"
    assert left in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("training.epochs=5", r"training.epochs \(was 2, is 5\) would change the run of study"),
        ("--list training.epochs=7", "would change the run of study"),
        ("training.precision=bf17", "training.precision"),
        ("training.sync_batchnorm=true", r"training.sync_batchnorm \(was False, is True\)"),
        ("seed=3", "'seed' differs from trial to trial; use --seeds"),
        ("output_dir=x", "'output_dir' differs from trial to trial; use --out"),
        ("training.epoch=2", "nearest valid key is 'training.epochs'"),
        ("--seeds a", "found 'a"),
        (f"--seeds {2**64}", f"found '?{2**64}"),
        ("--budget-minutes 0", "found '?0"),
        ("--budget-minutes 1e300", "found '?1e300"),
        ("--measure", "--measure needs --list"),
        ("--format csv", "--format needs --list"),
        ("--method rsa", "--method needs --list"),
    ],
)
def test_settings_that_make_another_run_and_malformed_options_are_refused(
    fresh: Path, refusal: Refusal, words: str, message: str
) -> None:
    """Overrides that change a row, and invalid seeds and budgets, are refused."""
    assert re.search(message, refusal(fresh, RSA, *words.split()))
    assert not (fresh / "out").exists()


SPEED = ("views.implementation=batched", "training.precision=bf16")
NOTES = [
    "pretraining: views.implementation batched (recipe: pillow)",
    "pretraining: training.precision bf16 (recipe: fp32)",
]


def test_speed_settings_are_accepted_noted_and_kept_to(
    fresh: Path, reproduce: Reproduce, refusal: Refusal, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each record and the report name them; the run is not resumed without; random has none."""
    # At 16 px stage 4 gets 1 x 1 maps, for which oneDNN's bf16 weight gradient of a convolution of
    # stride 2 depends on uninitialised memory (torch 2.11.0 and 2.14.1, on a processor with AMX).
    recipe = fresh / "study.yaml"
    recipe.write_text(recipe.read_text().replace("image_size: 16", "image_size: 32"))
    data = f"data.root={fresh / 'data'}"
    words = (RSA, RANDOM, data, *SPEED)
    assert reproduce(fresh, *words) == 0
    for name in RECORDS:
        noted = record(fresh, RSA, name)
        assert noted.deviations[:2] == NOTES
        assert len(noted.deviations) == len(set(noted.deviations)) > 2
        assert noted.model.pretraining is not None
        assert noted.model.pretraining["training"]["precision"] == "bf16"
        assert not set(NOTES) & set(record(fresh, RANDOM, name).deviations)
    page = fresh / "report.html"
    assert rsa_eval(["report", str(fresh / "results"), "--out", str(page)]) == 0
    assert all(note in page.read_text() for note in NOTES)
    error = refusal(fresh, RSA, data)
    assert "contains a run with other settings: training.precision (was bf16, is fp32)" in error
    assert "views.implementation (was batched, is pillow)" in error
    capsys.readouterr()
    assert reproduce(fresh, "--list", RSA, data, "--format", "csv") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("seed 0: recorded")
    assert reproduce(fresh, *words) == 0
    assert "recorded: 2 of 2" in capsys.readouterr().out


def test_a_run_of_other_settings_is_not_gone_on_with(
    made: Path, fresh: Path, copied: Path, refusal: Refusal
) -> None:
    """A recipe that was changed after the run does not take the run for its own."""
    recipe = fresh / "study.yaml"
    recipe.write_text(recipe.read_text().replace("beta_base: 0.3", "beta_base: 0.7"))
    error = refusal(fresh, RSA, f"data.root={made / 'data'}")
    assert "contains a run with other settings: method.beta_base (was 0.3, is 0.7)" in error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "method: [", "not valid YAML"),
        ("backbone.safetensors", "weights", "is not a complete safetensors file"),
        ("metrics.jsonl", "\xff", "is not UTF-8 text"),
        ("metrics.jsonl", "{\n{", "line 1 is not a JSON object"),
        ("machines.json", "[1", "is damaged"),
    ],
)
def test_a_damaged_run_folder_is_named(
    fresh: Path, copied: Path, refusal: Refusal, name: str, content: str, message: str
) -> None:
    """One line, no traceback, and no record of what cannot be read."""
    (copied / name).write_text(content, encoding="latin-1")
    error = refusal(fresh, RSA, f"data.root={fresh / 'data'}")
    assert message in error
    assert str(copied) in error
    assert not (fresh / "results").exists()


def test_a_row_that_fails_stops_no_other(
    made: Path, fresh: Path, copied: Path, refusal: Refusal
) -> None:
    """The others are made and kept; one line names what failed, and the exit code is 2."""
    (copied / "backbone.safetensors").write_text("weights")
    assert refusal(fresh, "study", f"data.root={made / 'data'}").startswith(
        "error: 3 of 6 evaluations failed; rerun the command to retry: knn, logistic, "
        f"linear_cached of {RSA}/seed-0: '{fresh}"
    )
    assert not (fresh / "results" / RSA).exists()
    assert results_of(record(fresh, RANDOM, "knn")) == results_of(record(made, RANDOM, "knn"))


def test_places_that_cannot_be_written_are_refused(fresh: Path, refusal: Refusal) -> None:
    """Before anything is trained."""
    (fresh / "results").write_text("")
    assert "--results" in refusal(fresh, RSA, f"data.root={fresh / 'data'}")
    assert not (fresh / "out").exists()


def test_rows_without_a_method_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    """Rows without an implemented method, and an empty list of rows, are refused."""
    assert "not implemented here: table5/coco/pirl" in refusal(tmp_path, "table5/coco/pirl")
    assert "give at least one ROW" in refusal(tmp_path)


class Detector:
    """Fake detection package: records its calls and leaves a run's files."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str], Path | None]] = []

    def __call__(self, path: Path, overrides: Sequence[str], start: Path | None) -> int:
        """Record the call."""
        self.calls.append((path.name, list(overrides), start))
        folder = Path(json.loads(overrides[-1].removeprefix("output_dir=")))
        (folder / "records").mkdir(parents=True)
        for name in ("records/detection.json", "metrics.jsonl", "predictions.json"):
            (folder / name).write_text("{}")
        return 0


def test_a_detector_starts_from_the_backbone_of_its_row(tmp_path: Path) -> None:
    """Of the same seed; it must be there. Its predictions are not kept, they are not small."""
    work = Detection(Path("configs/detection/mask_rcnn_R_50_FPN_1x.yaml"), "table4/imagenet/rsa")
    name = "table5/coco/rsa"
    row = PaperRow(name, 5, "RSA", "coco", 200, "box 41.1, mask 37.3", name, work)
    trial = plan_trial(row, 3, tmp_path, ["a.b=1"])
    detector = Detector()

    def make() -> dict[tuple[str, str], str]:
        kept = partial(keep_small_files, results=tmp_path / "results")
        return run_trials([trial], None, detect=detector, keep=kept).failures

    ((_, failure),) = make().items()
    start = tmp_path / "table4/imagenet/rsa/seed-3"
    weights = start / "backbone.safetensors"
    assert failure == f"it starts from '{weights}', which does not exist; reproduce that row first"
    assert not (tmp_path / "results").exists()
    start.mkdir(parents=True)
    weights.write_bytes(b"")
    assert make() == {}
    ((name, overrides, given),) = detector.calls
    assert name == "mask_rcnn_R_50_FPN_1x.yaml"
    assert overrides == ["a.b=1", "seed=3", f'output_dir="{tmp_path}/table5/coco/rsa/seed-3"']
    assert given == start
    files = {path.name for path in (tmp_path / "results").rglob("*") if path.is_file()}
    assert files == {"detection.json", "metrics.jsonl"}
