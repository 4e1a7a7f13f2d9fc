"""The runner of trials, with training runs and evaluations that take no time."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from rsa_eval.campaigns.campaign import Outcome, run_trials
from rsa_eval.campaigns.progress import status
from rsa_eval.campaigns.settings import PlannedEvaluation
from rsa_eval.campaigns.trials import AnyTrial, DetectorTrial, Trial, record_path
from rsa_eval.commands.campaigns import conclude
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.config.files import load_config, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import Stopped

NAMES = ("row seed-0", "row seed-1", "row seed-2")


@pytest.fixture
def trials(tiny_config: PretrainConfig, tmp_path: Path) -> list[Trial]:
    """Three seeds of a run, each with two evaluations."""
    config = load_config(EVALUATORS["knn"].config, None, start={"data": to_tree(tiny_config.data)})
    evaluations = tuple(
        PlannedEvaluation(name, EVALUATORS["knn"], config) for name in ("knn", "again")
    )
    configs = [
        tiny_config.model_copy(update={"seed": seed, "output_dir": tmp_path / f"row/seed-{seed}"})
        for seed in range(3)
    ]
    return [Trial(f"row/seed-{c.seed}", c.output_dir, evaluations, c) for c in configs]


@pytest.fixture
def run(runs: Any, trials: list[Trial]) -> Callable[..., Outcome]:
    """A function that runs the trials."""

    def run_all(budget_minutes: float | None = None, **changes: Any) -> Outcome:
        return run_trials(trials, budget_minutes, train=runs.train, **changes)

    return run_all


def test_a_failure_stops_no_other_and_is_retried(runs: Any, run: Callable[..., Outcome]) -> None:
    """In training no evaluation follows; what is kept is whole."""
    kept: list[str] = []

    def keep(trial: AnyTrial) -> None:
        kept.append(trial.name)

    runs.broken = {NAMES[0]: "the loss\nis nan", f"{NAMES[1]} knn": "too little memory"}
    outcome = run(keep=keep)
    assert outcome.failures == {
        ("row/seed-0", "knn"): "the loss is nan",
        ("row/seed-0", "again"): "the loss is nan",
        ("row/seed-1", "knn"): "too little memory",
    }
    assert kept == ["row/seed-2"]
    reasons = "knn, again of row/seed-0: the loss is nan; knn of row/seed-1: too little memory"
    with pytest.raises(UserError, match=f"^3 of 6 evaluations failed; rerun .* retry: {reasons}$"):
        conclude(outcome)
    runs.broken, runs.trained, runs.evaluated = {}, [], []
    assert conclude(run()) == 0
    assert runs.trained == [NAMES[0]]
    assert runs.evaluated == [f"{NAMES[0]} knn", f"{NAMES[0]} again", f"{NAMES[1]} knn"]


def test_what_cannot_be_kept_has_failed(run: Callable[..., Outcome]) -> None:
    """A damaged log, or a full disk, is no success."""

    def keep(trial: AnyTrial) -> None:
        raise OSError(28, "No space left on device", "/full/disk")

    assert set(run(keep=keep).failures.values()) == {
        "'/full/disk': No space left on device; free some space and rerun the command"
    }


def test_a_stopped_training_stops_the_rest(
    runs: Any, run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is the training's, whatever failed before; rerun, it is resumed."""
    runs.stopping = {NAMES[1]}
    runs.broken = {f"{NAMES[0]} again": "no"}
    outcome = run()
    assert (runs.trained, outcome.stopped, conclude(outcome)) == ([*NAMES[:2]], 143, 143)
    left = "stopped; 5 of 6 evaluations remain, first again of row/seed-0 (not started); "
    assert capsys.readouterr().out == f"{left}rerun to resume\n"
    runs.stopping, runs.broken, runs.trained = set(), {}, []
    assert conclude(run()) == 0
    assert runs.trained == [*NAMES[1:]]


def test_a_stopped_evaluation_stops_the_rest(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of its signal."""
    stop = MagicMock(side_effect=Stopped(signal.SIGTERM, "stopped after step 3 of 9, saved"))
    monkeypatch.setattr("rsa_eval.campaigns.campaign.make_record_of", stop)
    assert run().stopped == 143


def test_what_was_saved_midway_is_told_and_evaluations_are_counted(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a training's state nor a search's is work that was not started."""
    for suffix in (".state.pt", ".state.grid.pt"):

        def stop(*words: Any, suffix: str = suffix, **_: Any) -> None:
            words[3].with_suffix(suffix).parent.mkdir(exist_ok=True)
            words[3].with_suffix(suffix).write_bytes(b"")
            raise Stopped(signal.SIGTERM, "saved")

        monkeypatch.setattr("rsa_eval.campaigns.campaign.make_record_of", stop)
        outcome = run()
        conclude(outcome)
        said = capsys.readouterr().out
        assert "6 of 6 evaluations remain, first knn of row/seed-0 (saved midway)" in said
        assert status(outcome.trials[0]) == "trained, knn saved midway"
        Workspace(record_path(outcome.trials[0], "knn")).remove_states()


def test_a_state_that_outlived_its_record_is_deleted(run: Callable[..., Outcome]) -> None:
    """A kill may fall between writing the record and deleting the state; a rerun tidies up."""
    state = Workspace(record_path(run().trials[0], "knn")).state
    state.touch()
    run()
    assert not state.exists()


def test_a_budget_that_is_over_starts_nothing_and_stops_nothing_recorded(
    runs: Any, run: Callable[..., Outcome], trials: list[Trial]
) -> None:
    """Neither a training nor an evaluation; trials that are recorded end well."""
    assert run(1e-9).stopped == 142
    assert not trials[0].folder.exists()
    run()
    (trials[1].folder / "records" / "again.json").unlink()
    assert run(1e-9).stopped == 142
    assert run().stopped == 0
    outcome = run(1e-9)
    assert outcome.stopped == 0
    assert len(outcome.records) == 6
    assert len(runs.trained) == 3
    assert len(runs.evaluated) == 7


@pytest.mark.parametrize(
    ("broken", "what"), [(NAMES[1], "knn, again"), (f"{NAMES[1]} again", "again")]
)
def test_a_failure_in_one_of_several_processes_ends_the_command(
    runs: Any, run: Any, monkeypatch: pytest.MonkeyPatch, broken: str, what: str
) -> None:
    """The others may wait for it; trial and evaluation are named."""
    monkeypatch.setattr("rsa_eval.campaigns.campaign.world_size", lambda: 2)
    runs.broken = {broken: "no"}
    with pytest.raises(UserError, match=f"^{what} of row/seed-1: no$"):
        run()
    assert runs.trained == [*NAMES[:2]]


def test_a_detector_whose_backbone_failed_says_so(runs: Any, trials: list[Trial]) -> None:
    """A detector whose backbone failed is not started; the others are."""
    started: list[Path | None] = []

    def detect(path: Path, overrides: Sequence[str], start: Path | None) -> int:
        started.append(start)
        return 0

    detectors = [
        DetectorTrial(f"coco/{n}", trial.folder / "coco", Path("r.yaml"), n, trial.folder, ())
        for n, trial in enumerate(trials)
    ]
    runs.broken = {NAMES[0]: "the loss is nan"}
    outcome = run_trials([*trials, *detectors], None, train=runs.train, detect=detect)
    weights = trials[0].folder / "backbone.safetensors"
    failure = outcome.failures["coco/0", "detection"]
    assert failure == f"it starts from '{weights}', which failed"
    assert started == [trial.folder for trial in trials[1:]]
