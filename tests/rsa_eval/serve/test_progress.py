"""A run's progress and stage come from its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.report.inputs import TrainingRun, collect
from rsa_eval.serve.progress import find_stage, measure_progress
from tests.support.held_folder import held_folder

WriteLog = Callable[..., None]
MINUTE = 60.0


def _lines(*epochs: int, **more: float) -> list[dict[str, Any]]:
    """Lines of a run of ten steps an epoch of 256 images, at 1,280 images a second."""
    return [
        {"step": 10 * epoch, "epoch": epoch, "loss": 2.0 / epoch, "images_per_second": 1280.0}
        | more
        for epoch in epochs
    ]


def _run(folder: Path, write_log: WriteLog, lines: list[dict[str, Any]]) -> TrainingRun:
    write_log(folder, "cifar10/rsa", "training.epochs=40", lines=lines)
    (run,) = collect([folder]).runs
    return run


def test_times_follow_from_the_log(tmp_path: Path, write_log: WriteLog) -> None:
    """Ten steps of 256 images at 1,280 images/s take two seconds, an epoch the same."""
    lines = _lines(1, 2, 3, 4)
    lines[1]["knn_top1"] = 31.5
    progress = measure_progress(_run(tmp_path / "run", write_log, lines))
    assert (progress.step, progress.num_steps) == (40, 400)
    assert (progress.epoch, progress.num_epochs) == (4.0, 40.0)
    assert (progress.loss, progress.accuracy) == (0.5, 31.5)
    assert progress.seconds == pytest.approx(8.0)
    assert progress.seconds_left == pytest.approx(72.0)
    assert progress.seconds_per_line == pytest.approx(2.0)


def test_a_detector_counts_iterations(tmp_path: Path, write_log: WriteLog) -> None:
    """Those of the recipe are for the reference batch: half the batch takes twice as many."""
    line = {"step": 500, "loss": 1.0, "eta_seconds": 90.0, "bbox_AP": 12.5}
    write_log(tmp_path / "run", lines=[line])
    solver = "solver: {iterations: 1000, batch_size: 8, reference_batch_size: 16}\n"
    (tmp_path / "run/config.yaml").write_text(solver)
    (run,) = collect([tmp_path]).runs
    progress = measure_progress(run)
    assert (progress.step, progress.num_steps, progress.num_epochs) == (500, 2000, None)
    assert (progress.accuracy, progress.seconds_left) == (12.5, 90.0)


@pytest.mark.parametrize("config", ["", "solver: 3", "solver: {iterations: 1}", "[", "solver: {"])
def test_other_logs_tell_the_step_alone(tmp_path: Path, write_log: WriteLog, config: str) -> None:
    """Whatever the settings are, and without a line."""
    write_log(tmp_path / "run", lines=[{"step": 3, "loss": float("nan"), "epoch": "x"}])
    (tmp_path / "run/config.yaml").write_text(config)
    (run,) = collect([tmp_path]).runs
    progress = measure_progress(run)
    assert (progress.step, progress.num_steps, progress.loss) == (3, None, None)
    (tmp_path / "run/metrics.jsonl").write_text("")
    (empty,) = collect([tmp_path]).runs
    assert measure_progress(empty).step == 0


def test_the_last_step_or_a_finished_file_ends_a_run(tmp_path: Path, write_log: WriteLog) -> None:
    """A log may end before the last step if that is not to be logged; then the weights tell."""
    run = _run(tmp_path / "run", write_log, _lines(39))
    progress = measure_progress(run)
    assert find_stage(run.folder, progress, MINUTE) == "in progress"
    assert find_stage(run.folder, progress, 3 * MINUTE) == "stopped"
    (run.folder / "backbone.safetensors").touch()
    assert find_stage(run.folder, progress, MINUTE) == "finished"
    (run.folder / "backbone.safetensors").unlink()
    (run.folder / "records").mkdir()
    (run.folder / "records/knn.json").touch()
    assert find_stage(run.folder, progress, MINUTE) == "finished"
    ended = _run(tmp_path / "ended", write_log, _lines(40))
    assert find_stage(ended.folder, measure_progress(ended), MINUTE) == "finished"


def test_a_slow_run_is_waited_for(tmp_path: Path, write_log: WriteLog) -> None:
    """Where lines are minutes apart, a quiet log is not yet that of a stopped run."""
    run = _run(tmp_path / "run", write_log, _lines(1, 2, images_per_second=2.56))
    progress = measure_progress(run)
    assert progress.seconds_per_line == pytest.approx(1000.0)
    assert find_stage(run.folder, progress, 2900.0) == "in progress"
    assert find_stage(run.folder, progress, 3100.0) == "stopped"


@pytest.mark.process
def test_a_held_folder_is_in_progress(tmp_path: Path, write_log: WriteLog) -> None:
    """However long its log is quiet, and though it has records of before; the lock is not taken."""
    folder = tmp_path / "run"
    with held_folder(folder):
        run = _run(folder, write_log, _lines(1))
        progress = measure_progress(run)
        assert find_stage(folder, progress, 1e6) == "in progress"
    assert find_stage(folder, progress, 1e6) == "stopped"
