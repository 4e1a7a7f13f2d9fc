"""The files of evaluations: features, states, records, predictions, benchmarks' results."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.faults.damage.mutants import (
    mutate,
    mutate_inside_zip,
    mutate_json,
    mutate_safetensors,
    mutate_text,
)
from benchmarks.faults.damage.runs import metadata, write_backbone, write_machines, write_metrics
from benchmarks.faults.damage.trials import IGNORED, Kind
from benchmarks.measure import Finding, Result, read_result
from rsa_eval.campaigns.progress import status
from rsa_eval.campaigns.run_records import recorded
from rsa_eval.campaigns.settings import PlannedEvaluation
from rsa_eval.campaigns.trials import Trial
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.heads import HeadTrainer, new_heads
from rsa_eval.evaluators.linear.settings import ProbeConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.given import read_given
from rsa_eval.features.identity import FeatureIdentity
from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.predictions import KeyedPredictions, file_of, read_predictions
from rsa_eval.records.record import SCHEMA_VERSION, Metric, Model, Record, read_record, write_record
from rsa_eval.report.inputs import collect
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import file_sha256

_PROBE = ProbeConfig(
    epochs=4, batch_size=8, base_lr=(1.0, 30.0), schedule="cosine_by_step", milestones=()
)
_LABELS = np.arange(24, dtype=np.int64) % 3
_FEATURES = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
_ANSWERS = ClassPredictions(
    _LABELS.astype(np.uint8),
    _LABELS[None, ::-1].astype(np.uint8),
    np.ones((1, 24), np.uint8),
    ("",),
    3,
)
_KEYS = [f"{number}.png" for number in range(24)]
_IDENTITY = FeatureIdentity(
    format_version=2,
    weights="2" * 64,
    images="1" * 64,
    transform="resize",
    layers=("layer4",),
    precision="fp32",
    feature_dtype="float32",
    library_versions={"torch": "2"},
)


def make_record(folder: Path, **changes: Any) -> Record:
    """Describe an evaluation of a small backbone."""
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "knn",
        "protocol": "knn",
        "deviations": ["a smaller network"],
        "metrics": {"top1": Metric(value=91.25, unit="%"), "top5": Metric(value=99.5, unit="%")},
        "headline": "top1",
        "num_samples": 24,
        "data_set": "digits",
        "model": Model(
            checkpoint=str(folder / "backbone.safetensors"),
            sha256=None,
            metadata=metadata(),
            backbone=metadata().network,
        ),
        "config": {"seed": 0, "data": {"name": "digits", "root": None}},
        "seeds": [0],
        "details": {"warnings": ["few images"], "curve": [1.0, 2.0]},
        "artifacts": {},
        "command": ["rsa-eval", "knn"],
        "git_commit": "c0ffee" * 6,
        "git_dirty": True,
        "library_versions": {"torch": "2.0"},
        "hardware": "a processor",
        "seconds": 1.5,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Record(**(fields | changes))


def evaluation_kinds() -> list[Kind]:
    """Return the kinds of files that evaluations and campaigns leave."""
    return [
        Kind(
            "record", _write_record, lambda path: read_record(path).model_dump_json(), mutate_json
        ),
        Kind("record in a report", _write_record, _read_report, mutate_json),
        Kind("metrics.jsonl in a report", _write_log, _read_report, mutate_text),
        Kind("machines.json in a report", _write_machines_of_log, _read_report, mutate_json),
        Kind("config.yaml in a report", _write_config_of_log, _read_report, mutate_text),
        Kind("predictions", _write_predictions, _read_answers, mutate, has_checksum=True),
        Kind("predictions, SHA-256 restated", _write_predictions, _read_restated, mutate),
        Kind("predictions, changed inside", _write_predictions, _read_restated, mutate_inside_zip),
        Kind("feature cache", _write_cache, _read_cache, mutate_safetensors, has_checksum=True),
        Kind("given cache", _write_cache, _read_given, mutate),
        Kind("given .safetensors", _write_plain_tensors, _read_given, mutate_safetensors),
        Kind("given .npz", _write_npz, _read_given, mutate, has_checksum=True),
        Kind("given .npz, changed inside", _write_npz, _read_given, mutate_inside_zip),
        Kind("given .npy", _write_npy, _read_given, mutate),
        Kind("labels of .npy", _write_npy_labels, _read_given_of_labels, mutate),
        Kind("state of a probe", _write_state, _read_state, mutate, has_checksum=True),
        Kind("state of a probe, changed inside", _write_state, _read_state, mutate_inside_zip),
        Kind("record of a campaign", _write_trial, _read_trial, mutate_json),
        Kind("benchmark result", _write_result, _read_result, mutate_json),
    ]


def _write_record(folder: Path) -> Path:
    path = folder / "records" / "knn.json"
    write_record(make_record(folder), path)
    return path


def _write_log(folder: Path) -> Path:
    write_machines(folder)
    (folder / "config.yaml").write_text("name: a detection run\nseed: 2026-01-01\n")
    return write_metrics(folder)


def _write_machines_of_log(folder: Path) -> Path:
    return _write_log(folder).with_name("machines.json")


def _write_config_of_log(folder: Path) -> Path:
    return _write_log(folder).with_name("config.yaml")


def _read_report(path: Path) -> str:
    """Return what a report shows, which lists unreadable files beside it."""
    folder = path.parent.parent if path.parent.name == "records" else path.parent
    inputs = collect([folder])
    if inputs.unreadable:
        raise UserError("; ".join(inputs.unreadable))
    records = [record.model_dump_json() for _, record in inputs.records]
    return repr((records, [(run.metrics, run.config, run.machines) for run in inputs.runs]))


def _write_predictions(folder: Path) -> Path:
    record = folder / "knn.json"
    entry, content = file_of(_KEYS, _ANSWERS, record)
    write_record(make_record(folder, predictions=entry), record, content)
    return folder / entry.file


def _read_answers(path: Path) -> object:
    record = path.with_name("knn.json")
    return _arrays(read_predictions(record, read_record(record)))


def _read_restated(path: Path) -> object:
    """Read the file as if the record had been made with it."""
    record = path.with_name("knn.json")
    found = read_record(record)
    assert found.predictions is not None
    if path.is_file():
        entry = found.predictions.model_copy(update={"sha256": file_sha256(path)})
        found = found.model_copy(update={"predictions": entry})
    return _arrays(read_predictions(record, found))


def _arrays(keyed: KeyedPredictions) -> object:
    arrays = keyed.predictions.arrays()
    return keyed.keys, {name: (str(a.dtype), a.tolist()) for name, a in arrays.items()}


def _entry(folder: Path) -> CacheEntry:
    return CacheEntry(folder, "small", _IDENTITY, torch.from_numpy(_LABELS), 6, torch.float32)


def _write_cache(folder: Path) -> Path:
    entry = _entry(folder)
    features = torch.from_numpy(_FEATURES)
    entry.ensure(
        len(features),
        torch.device("cpu"),
        lambda batches: ((batch.start, features[batch.start : batch.stop]) for batch in batches),
    )
    return entry.path


def _read_cache(path: Path) -> object:
    entry = _entry(path.parent)
    return entry.map().tolist() if entry.is_usable() else IGNORED


def _write_plain_tensors(folder: Path) -> Path:
    path = folder / "train.safetensors"
    save_file({"x": torch.from_numpy(_FEATURES), "y": torch.from_numpy(_LABELS)}, path)
    return path


def _write_npz(folder: Path) -> Path:
    path = folder / "train.npz"
    np.savez_compressed(path, features=_FEATURES.astype(np.float16), labels=_LABELS)
    return path


def _write_npy(folder: Path) -> Path:
    np.save(folder / "train.npy", _FEATURES)
    np.save(folder / "train_labels.npy", _LABELS)
    return folder / "train.npy"


def _write_npy_labels(folder: Path) -> Path:
    return _write_npy(folder).with_name("train_labels.npy")


def _read_given(path: Path) -> object:
    given = read_given(path)
    return given.labelled.features.tolist(), given.labelled.labels.tolist(), given.identity


def _read_given_of_labels(path: Path) -> object:
    return _read_given(path.with_name("train.npy"))


def _probe_state(path: Path) -> ProbeState:
    heads = new_heads(6, 3, _PROBE, 0, torch.device("cpu"))
    return ProbeState(HeadTrainer(heads, _PROBE), "same", path)


def _write_state(folder: Path) -> Path:
    path = folder / "knn.state.pt"
    state = _probe_state(path)
    state.step, state.losses = 3, [[0.5, 0.25]]
    state.loss_sums += 1
    state.save()
    return path


def _read_state(path: Path) -> object:
    state = _probe_state(path)
    state.restore()
    if state.step == 0:
        return IGNORED
    return state.step, state.losses, [tensor.tolist() for tensor in state.tensors()]


def _trial(folder: Path) -> Trial:
    config = parse_tree(KNNConfig, {"data": {"name": "digits", "image_size": 16}}, "the trial")
    planned = PlannedEvaluation("knn", EVALUATORS["knn"], config)
    weights = folder / "backbone.safetensors"
    return Trial("small", folder, (planned,), checkpoint=weights, sha256=file_sha256(weights))


def _write_trial(folder: Path) -> Path:
    model = make_record(folder).model.model_copy(
        update={"sha256": file_sha256(write_backbone(folder))}
    )
    (planned,) = _trial(folder).evaluations
    path = folder / "records" / "knn.json"
    entry, content = file_of(_KEYS, _ANSWERS, path)
    made = make_record(folder, model=model, config=to_tree(planned.config), predictions=entry)
    write_record(made, path, content)
    return path


def _read_trial(path: Path) -> object:
    trial = _trial(path.parent.parent)
    found = recorded(path, trial.sha256, trial.evaluations[0].config)
    return IGNORED if found is None else (status(trial), found.model_dump_json())


def _write_result(folder: Path) -> Path:
    path = folder / "knn-cpu.json"
    finding = Finding(what="speed", value=2.0, unit="x", bound="at least", limit=1.0)
    result = Result(
        benchmark="knn",
        findings=[finding],
        seconds={"ours": [1.0, 2.0]},
        settings={"device": "cpu"},
        hardware="a processor",
        library_versions={"torch": "2.0"},
        command=["python", "-m", "benchmarks", "knn"],
        created="2026-01-01T00:00:00+00:00",
    )
    path.write_text(result.model_dump_json(indent=2))
    return path


def _read_result(path: Path) -> object:
    found = read_result(path)
    return IGNORED if found is None else found.model_dump_json()
