"""Export to Hugging Face: a folder that ``ResNetModel.from_pretrained`` loads."""

import importlib
import json
from pathlib import Path

import torch
from torch import Tensor

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.targets.base import ExportTarget
from rsa_pretrain.weights.files.saving import save_safetensors
from rsa_pretrain.weights.foreign.layouts.huggingface import EXPECTED_CONFIG
from rsa_pretrain.weights.foreign.names import TRANSFORMERS

WEIGHTS_FILE = "model.safetensors"
_NUM_STAGES = 4
_DEFAULT_IMAGE_SIZE_PIXELS = 224


def write(loaded: LoadedBackbone, folder: Path) -> None:
    """Write weights, ``config.json`` and ``preprocessor_config.json``."""
    state = loaded.backbone.state_dict()
    renamed = {TRANSFORMERS.from_torchvision(name): tensor for name, tensor in state.items()}
    save_safetensors(renamed, folder / WEIGHTS_FILE, {"format": "pt"})
    for name, tree in (
        ("config.json", _config(loaded)),
        ("preprocessor_config.json", _preprocessor(loaded)),
    ):
        (folder / name).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def features(loaded: LoadedBackbone, folder: Path, images: Tensor) -> Tensor:
    """Load with transformers and return its pooled output."""
    transformers = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    network, report = transformers.ResNetModel.from_pretrained(
        str(folder), local_files_only=True, output_loading_info=True
    )
    wrong = {kind: sorted(report[kind]) for kind in ("missing_keys", "unexpected_keys")}
    if any(wrong.values()):
        raise RuntimeError(f"transformers does not load the whole folder: {wrong}")
    with torch.inference_mode():
        result: Tensor = network.eval()(pixel_values=images).pooler_output.flatten(1)
    return result


def _config(loaded: LoadedBackbone) -> dict[str, object]:
    state = loaded.backbone.state_dict()
    stages = [f"layer{number + 1}" for number in range(_NUM_STAGES)]
    depths = [
        len({name.split(".")[1] for name in state if name.startswith(f"{stage}.")})
        for stage in stages
    ]
    top = feature_dim(loaded.backbone)
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "depths": depths,
        "hidden_sizes": [top // 2 ** (_NUM_STAGES - 1 - number) for number in range(_NUM_STAGES)],
        "layer_type": "bottleneck" if "layer1.0.conv3.weight" in state else "basic",
        **EXPECTED_CONFIG,
    }


def _preprocessor(loaded: LoadedBackbone) -> dict[str, object]:
    metadata = loaded.metadata
    side = metadata.image_size or _DEFAULT_IMAGE_SIZE_PIXELS
    return {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "crop_pct": 224 / 256,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(metadata.mean),
        "image_std": list(metadata.std),
    }


HUGGINGFACE = ExportTarget(
    name="huggingface",
    suffix="",
    stems=("standard",),
    write=write,
    packages=("transformers",),
    features=features,
    layout="huggingface",
    weights=WEIGHTS_FILE,
    advice="transformers.ResNetModel.from_pretrained('OUT')",
)
