"""Records of the paper's recipes, and logs of runs, all numbers made up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.record import Model, Record
from rsa_pretrain.checkpoint import BackboneMetadata, library_versions
from rsa_pretrain.config import BackboneConfig, PretrainConfig
from rsa_pretrain.config_files import load_config, to_tree, write_config

CONFIGS = Path(__file__).parents[3] / "configs" / "pretrain"


@pytest.fixture
def make_trial(make_result: Callable[..., Record]) -> Callable[..., Record]:
    """A function that makes up the record of a recipe's weights, evaluated as in the paper."""

    def make(recipe: str, *words: str, seed: int = 0, **changes: Any) -> Record:
        config = load_config(PretrainConfig, CONFIGS / recipe, [f"seed={seed}", *words])
        known = changes.pop("pretraining", True)
        metadata = BackboneMetadata(
            format_version=1,
            arch=config.backbone.arch,
            stem=config.backbone.stem,
            method=config.method.name,
            image_size=config.data.image_size,
            channel_order="RGB",
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            data_set=config.data.name,
            epochs=changes.pop("epochs", float(config.training.epochs)),
            step=1,
            seed=seed,
            config_hash="0" * 64,
            parent=None,
            library_versions=library_versions(),
        )
        model = Model(
            checkpoint=f"{config.output_dir}/backbone.safetensors",
            sha256=f"{seed:064x}",
            metadata=metadata,
            backbone=BackboneConfig(arch=config.backbone.arch, stem=config.backbone.stem),
            pretraining=to_tree(config) if known else None,
        )
        large = config.data.name.startswith("imagenet")
        return make_result(
            **(
                {
                    "model": model,
                    "data_set": config.data.name,
                    "protocol": "mean_shift" if large else "moco_v2",
                }
                | changes
            )
        )

    return make


@pytest.fixture
def write_log() -> Callable[..., None]:
    """A function that leaves the log of a run in a folder, with the recipe's settings if named."""

    def write(
        folder: Path,
        recipe: str | None = None,
        *words: str,
        lines: list[dict[str, Any]] | None = None,
        machines: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if lines is None:
            shown = {"loss_weak": 1.0, "beta": 0.3, "lr": 0.1}
            lines = [{"step": step, "loss": 2 - step / 100} | shown for step in range(1, 21)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        if recipe is None:
            (folder / "config.yaml").write_text("seed: 4711\n")
        else:
            config = load_config(PretrainConfig, CONFIGS / recipe, words)
            write_config(config, folder / "config.yaml")
        if machines:
            trees = [{"hardware": name, "num_processes": 1} for name in machines]
            (folder / "machines.json").write_text(json.dumps(trees))

    return write
