"""The files of a pretraining run, and its configs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.faults.damage.mutants import (
    mutate,
    mutate_inside_zip,
    mutate_json,
    mutate_safetensors,
    mutate_text,
)
from benchmarks.faults.damage.trials import Kind
from rsa_eval.features.identity import tensors_sha256
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.config import CONFIG_FILE, PretrainConfig, load_run
from rsa_pretrain.plumbing.config.files import load_config, parse_tree, to_tree, write_config
from rsa_pretrain.plumbing.machines import MACHINES_FILE, note_machine, read_machines
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.training.batch_plan import plan_batches
from rsa_pretrain.training.run_state import RunState
from rsa_pretrain.weights.checkpoint import (
    BACKBONE_FILE,
    MODEL_FILE,
    TRAINER_FILE,
    load_backbone,
    load_checkpoint,
    save_checkpoint,
    save_tensors,
)
from rsa_pretrain.weights.foreign.describe import describe_file
from rsa_pretrain.weights.metadata import BackboneMetadata, library_versions

_SLOW = 0.25
_CPU = torch.device("cpu")
_TREE = {
    "output_dir": "runs/small",
    "data": {"name": "digits", "image_size": 16, "num_workers": 0},
    "backbone": {"arch": "resnet18", "stem": "cifar", "width": 8},
    "method": {"name": "rsa", "hidden_dim": 8, "output_dim": 8, "beta_base": 0.3},
    "optimizer": {"base_lr": 0.1, "weight_decay": 0.0005},
    "training": {"epochs": 2, "global_batch_size": 8, "device": "cpu"},
}
CONFIG = parse_tree(PretrainConfig, _TREE, "the small run")


def metadata() -> BackboneMetadata:
    """Describe the small run's weights."""
    return BackboneMetadata(
        format_version=1,
        arch=CONFIG.backbone.name,
        stem=CONFIG.backbone.stem,
        method="rsa",
        image_size=16,
        channel_order="RGB",
        mean=(0.3, 0.3, 0.3),
        std=(0.35, 0.35, 0.35),
        data_set="digits",
        epochs=2.0,
        step=4,
        seed=0,
        config_hash="0" * 64,
        parent=None,
        library_versions=library_versions(),
    )


def write_backbone(folder: Path) -> Path:
    """Write the finished backbone with random weights."""
    torch.manual_seed(0)
    path = folder / BACKBONE_FILE
    save_tensors(path, build_backbone(CONFIG.backbone).state_dict(), metadata())
    return path


def write_run_config(folder: Path) -> Path:
    """Write the settings that a run resolved."""
    path = folder / CONFIG_FILE
    write_config(CONFIG, path)
    return path


def write_metrics(folder: Path) -> Path:
    """Write the log of a run."""
    path = folder / METRICS_FILE
    lines = [f'{{"step": {step}, "loss": {2 / step}, "epoch": {step / 2}}}' for step in range(1, 9)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_machines(folder: Path) -> Path:
    """Write the machines of a run."""
    note_machine(folder, _CPU)
    return folder / MACHINES_FILE


def run_kinds() -> list[Kind]:
    """Return the kinds of files in a run folder, and of configs."""
    return [
        Kind("config YAML", _write_config_on_base, _read_config, mutate_text),
        Kind("config YAML named as base", _write_base, _read_config_on_base, mutate_text),
        Kind("config.yaml of a run", write_run_config, _read_run_config, mutate_text),
        Kind("metrics.jsonl", write_metrics, read_metrics, mutate_text),
        Kind("machines.json", write_machines, lambda path: read_machines(path.parent), mutate_json),
        Kind("backbone.safetensors", write_backbone, _read_backbone, mutate_safetensors),
        Kind("backbone.safetensors, inspected", write_backbone, _inspect, mutate_safetensors),
        Kind("model.safetensors", *_checkpoint(MODEL_FILE), mutate_safetensors, share=_SLOW),
        Kind("trainer.pt", *_checkpoint(TRAINER_FILE), mutate, has_checksum=True, share=_SLOW),
        Kind(
            "trainer.pt, changed inside", *_checkpoint(TRAINER_FILE), mutate_inside_zip, share=_SLOW
        ),
    ]


def _write_base(folder: Path) -> Path:
    _write_config_on_base(folder)
    return folder / "base.yaml"


def _write_config_on_base(folder: Path) -> Path:
    (folder / "base.yaml").write_text(yaml.safe_dump(_TREE))
    path = folder / "config.yaml"
    path.write_text("# a config\nbase: base.yaml\noptimizer: {base_lr: 0.2}\nseed: 3\n")
    return path


def _read_config(path: Path) -> dict[str, Any]:
    return to_tree(load_config(PretrainConfig, path))


def _read_config_on_base(path: Path) -> dict[str, Any]:
    return _read_config(path.with_name("config.yaml"))


def _read_run_config(path: Path) -> dict[str, Any]:
    return to_tree(load_run(path.parent))


def _read_backbone(path: Path) -> tuple[str, str]:
    loaded = load_backbone(path)
    return tensors_sha256(loaded.backbone.state_dict()), loaded.metadata.model_dump_json()


def _inspect(path: Path) -> list[str]:
    return describe_file(path, every_tensor=True)


def _checkpoint(name: str) -> tuple[Callable[[Path], Path], Callable[[Path], object]]:
    """Return writer and reader of one of the files of a checkpoint that a run resumes from."""
    plan = plan_batches(CONFIG.training, 1, 0)

    def write(folder: Path) -> Path:
        state = RunState(CONFIG, "0" * 64, _CPU, plan)
        for parameter in state.method.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimizer.step()
        model, trainer = state.method.state_dict(), state.trainer_state()
        return save_checkpoint(folder, model, metadata(), trainer, keep=1) / name

    def read(path: Path) -> object:
        state = RunState(CONFIG, "0" * 64, _CPU, plan)
        model, described, trainer = load_checkpoint(path.parent)
        state.restore(model, trainer, source=f"'{path.parent}'")
        slots = state.optimizer.state_dict()
        return (
            tensors_sha256(state.method.state_dict()),
            described.model_dump_json(),
            [(key, tensors_sha256(slot)) for key, slot in slots["state"].items()],
            repr(slots["param_groups"]),
            state.step,
            torch.get_rng_state().tolist(),
        )

    return write, read
