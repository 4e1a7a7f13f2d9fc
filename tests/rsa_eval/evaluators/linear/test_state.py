import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsa_eval.__main__ import main
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.batches import ReadOrder, cached_batches
from rsa_eval.evaluators.linear.evaluator import evaluate_linear
from rsa_eval.evaluators.linear.heads import HeadTrainer, new_heads
from rsa_eval.evaluators.linear.probe import train_probe
from rsa_eval.evaluators.linear.settings import LinearConfig, ProbeConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.evaluators.shared.resumable import training_fingerprint
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.scaling import unscaled
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Result, read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.stop_signal import Stopped

CPU = torch.device("cpu")
PROBE = ProbeConfig(
    epochs=4, batch_size=16, base_lr=(1.0, 30.0), schedule="cosine_by_step", milestones=()
)
ORDER = ReadOrder(num_images=53, batch_size=16, epochs=4, seed=0)


@pytest.fixture
def features() -> LabelledFeatures:
    """53 features of width 6 in 3 classes."""
    return LabelledFeatures(torch.randn(53, 6), torch.randint(3, (53,)))


def _new_state(path: Path, fingerprint: str = "same") -> ProbeState:
    trainer = HeadTrainer(new_heads(6, 3, PROBE, 0, CPU), PROBE)
    state = ProbeState(trainer, fingerprint, path)
    state.restore()
    return state


def _train(state: ProbeState, features: LabelledFeatures) -> ProbeState:
    train_probe(state, cached_batches(features, ORDER, unscaled, CPU), ORDER, save_every_minutes=5)
    return state


def _raise_at_step(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Let a signal arrive during the step-th step from now on."""
    original, taken = HeadTrainer.step, []

    def taking_step(self: HeadTrainer, *arguments: Any) -> torch.Tensor:
        taken.append(1)
        if len(taken) == step:
            signal.raise_signal(number)
        return original(self, *arguments)

    monkeypatch.setattr(HeadTrainer, "step", taking_step)


@pytest.mark.parametrize("step", [8, 6, 16])
def test_going_on_equals_never_stopping(
    features: LabelledFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stopped after two of four epochs, within one or at the end, all comes out bit for bit."""
    whole = _train(_new_state(tmp_path / "whole.pt"), features)
    path = tmp_path / "state.pt"
    with monkeypatch.context() as patch:
        _raise_at_step(patch, step, signal.SIGTERM)
        with pytest.raises(Stopped, match=rf"stopped by SIGTERM after step {step} of 16, saved"):
            _train(_new_state(path), features)
    taken_up = _new_state(path)
    assert taken_up.step == step
    _train(taken_up, features)
    assert taken_up.losses == whole.losses
    assert len(whole.losses) == 4
    for found, expected in zip(taken_up.tensors(), whole.tensors(), strict=True):
        assert torch.equal(found, expected)


def test_a_finished_training_is_not_repeated(features: LabelledFeatures, tmp_path: Path) -> None:
    """Its state is saved too: what comes after the training may be stopped as well."""
    whole = _train(_new_state(tmp_path / "state.pt"), features)
    again = _new_state(tmp_path / "state.pt")
    assert again.step == ORDER.num_steps
    _train(again, LabelledFeatures(torch.full((53, 6), torch.nan), features.labels))
    assert torch.equal(again.trainer.heads.weight, whole.trainer.heads.weight)


def test_the_state_is_saved_now_and_then(
    features: LabelledFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that dies at a step without a signal has left the state of the step before."""
    original, taken = HeadTrainer.step, []

    def dying(self: HeadTrainer, *arguments: Any) -> torch.Tensor:
        taken.append(1)
        if len(taken) == 6:
            raise ZeroDivisionError
        return original(self, *arguments)

    monkeypatch.setattr(HeadTrainer, "step", dying)
    batches = cached_batches(features, ORDER, unscaled, CPU)
    with pytest.raises(ZeroDivisionError):
        train_probe(_new_state(tmp_path / "state.pt"), batches, ORDER, save_every_minutes=0)
    assert _new_state(tmp_path / "state.pt").step == 5


def test_a_state_of_something_else_is_not_used(
    features: LabelledFeatures, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With another fingerprint the training starts from step 0 and says so."""
    _train(_new_state(tmp_path / "state.pt"), features)
    with caplog.at_level(logging.WARNING):
        assert _new_state(tmp_path / "state.pt", "other").step == 0
    assert "belongs to other weights, images or settings" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "number", "pipe", "text", "list", "pickle"])
def test_a_damaged_state_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """A damaged state, or one that would run code, is ignored with a warning."""
    path = tmp_path / "state.pt"
    if damage == "cut":
        _new_state(path).save()
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "number":
        _new_state(path).save()
        sums = torch.full((2,), 7.0, dtype=torch.float64)
        state = _new_state(path)
        state.loss_sums += sums
        state.save()
        content = path.read_bytes().replace(sums.numpy().tobytes(), (-sums).numpy().tobytes())
        path.write_bytes(content)
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "text":
        path.write_text("a state")
    else:
        torch.save([1] if damage == "list" else {"format_version": Path}, path)
    with caplog.at_level(logging.WARNING):
        assert _new_state(path).step == 0
    assert "is incomplete or damaged; training starts from step 0" in caplog.text


def test_a_state_beyond_memory_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sound, and training from step 0 would replace it."""
    path = tmp_path / "state.pt"
    _new_state(path).save()

    def fail(*words: Any, **settings: Any) -> None:
        raise RuntimeError("can't allocate memory: you tried to allocate 99999999 bytes")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="allocate"):
        _new_state(path)


def _evaluate(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, **settings: Any
) -> Result:
    tree = {"data": to_tree(knn_config.data), "device": "cpu", **settings}
    return evaluate_linear(subject, parse_tree(LinearConfig, tree, "test"), workspace)


def test_a_training_is_known_by_all_that_decides_it(
    subject: Subject, knn_config: KNNConfig
) -> None:
    """Weights, pixel statistics, images and settings, but not where and how fast it runs."""

    def fingerprint(other: Subject = subject, count: int = 60, **settings: Any) -> str:
        data = to_tree(knn_config.data) | {"num_train_images": count}
        tree = {"data": data | settings.pop("data", {}), **settings}
        config = parse_tree(LinearConfig, tree, "test")
        return training_fingerprint(other, open_images(config.data, "train"), config)

    neutral = [
        fingerprint(),
        fingerprint(device="cpu", save_every_minutes=1),
        fingerprint(data={"num_workers": 2}),
    ]
    assert len(set(neutral)) == 1
    model = subject.model.model_copy(update={"sha256": "0" * 64})
    decisive = [
        fingerprint(replace(subject, model=model)),
        fingerprint(replace(subject, mean=(0.5, 0.5, 0.5))),
        fingerprint(count=50),
        fingerprint(seed=1),
        fingerprint(protocol="simsiam"),
        fingerprint(probe={"nesterov": True}),
        fingerprint(probe={"views": "batched"}),
    ]
    assert len({*neutral, *decisive}) == 1 + len(decisive)


@pytest.mark.parametrize("way", [{}, {"views": "batched"}, {"mode": "cached"}])
def test_an_evaluation_goes_on_where_it_stopped(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    way: dict[str, str],
) -> None:
    """Stopped within the second epoch it ends with the numbers of an undisturbed one."""
    probe = {"epochs": 3, "milestones": [2], "batch_size": 25, "base_lr": 1.0, **way}
    whole = _evaluate(subject, knn_config, workspace, probe=probe)
    workspace.remove_states()
    with monkeypatch.context() as patch:
        _raise_at_step(patch, 4, signal.SIGINT)
        with pytest.raises(Stopped, match="SIGINT after step 4 of 9"):
            _evaluate(subject, knn_config, workspace, probe=probe)
    assert workspace.state.exists()
    resumed = _evaluate(subject, knn_config, workspace, probe=probe)
    assert resumed.details == whole.details
    assert resumed.metrics == whole.metrics


def test_other_settings_start_anew(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A state stopped at another rate does not affect the result."""
    probe = {"mode": "cached", "epochs": 2, "milestones": [], "batch_size": 25}
    slow, fast = probe | {"base_lr": 0.1}, probe | {"base_lr": 1.0}
    expected = _evaluate(subject, knn_config, workspace, probe=fast)
    with monkeypatch.context() as patch:
        _raise_at_step(patch, 4, signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGTERM"):
            _evaluate(subject, knn_config, workspace, probe=slow)
    found = _evaluate(subject, knn_config, workspace, probe=fast)
    assert "belongs to other weights, images or settings" in caplog.text
    assert found.details == expected.details


def test_the_command_ends_with_the_signals_code(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """143 after SIGTERM and no record; the same command then ends well."""
    out = tmp_path / "linear.json"
    words = ["linear", str(run_folder), "--out", str(out), "device=cpu"]
    words += ["probe.mode=cached", "probe.epochs=3", "probe.milestones=[]", "probe.batch_size=30"]
    with monkeypatch.context() as patch:
        _raise_at_step(patch, 3, signal.SIGTERM)
        assert main(words) == 143
    assert not out.exists()
    assert Workspace(out).state.exists()
    assert main(words) == 0
    assert len(read_record(out).details["loss_by_epoch"]) == 3
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"linear.json", "linear.predictions.npz"}
