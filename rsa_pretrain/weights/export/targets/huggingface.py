"""Export to Hugging Face: a folder that transformers and, from the hub, timm load.

The two libraries name a ResNet's tensors differently, so the folder has them twice: for
transformers in ``model.safetensors``, and for timm in ``backbone.safetensors``, which is this
toolkit's own format and keeps the provenance.
"""

import importlib
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from rsa_pretrain.components.backbone import feature_dim
from rsa_pretrain.weights.checkpoint import BACKBONE_FILE, LoadedBackbone, save_tensors
from rsa_pretrain.weights.export.targets.base import ExportTarget
from rsa_pretrain.weights.files.saving import save_safetensors
from rsa_pretrain.weights.foreign.layouts.huggingface import EXPECTED_CONFIG
from rsa_pretrain.weights.foreign.names import TRANSFORMERS

WEIGHTS_FILE = "model.safetensors"
_NUM_STAGES = 4
_DEFAULT_IMAGE_SIZE_PIXELS = 224
_CROP_PCT = 224 / 256
_STRIDE = 32  # of the last map
# For a name that ends so, every timm reads the safetensors file; for its own name, some unpickle.
_TIMM_FILE = BACKBONE_FILE.replace(".safetensors", ".bin")


def write(loaded: LoadedBackbone, folder: Path) -> None:
    """Write both files of weights, ``config.json`` and ``preprocessor_config.json``."""
    state = loaded.backbone.state_dict()
    renamed = {TRANSFORMERS.from_torchvision(name): tensor for name, tensor in state.items()}
    save_safetensors(renamed, folder / WEIGHTS_FILE, {"format": "pt"})
    save_tensors(folder / BACKBONE_FILE, state, loaded.metadata)
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
        **_timm_config(loaded),
    }


def _timm_config(loaded: LoadedBackbone) -> dict[str, object]:
    """Return the keys that timm reads in a ``config.json`` of the hub."""
    metadata = loaded.metadata
    side = metadata.image_size or _DEFAULT_IMAGE_SIZE_PIXELS
    return {
        "architecture": metadata.arch,
        "num_classes": 0,
        "num_features": feature_dim(loaded.backbone),
        "pretrained_cfg": {
            "hf_hub_filename": _TIMM_FILE,
            "num_classes": 0,
            "input_size": [3, side, side],
            "pool_size": [math.ceil(side / _STRIDE)] * 2,
            "crop_pct": _CROP_PCT,
            "interpolation": "bilinear",
            "mean": list(metadata.mean),
            "std": list(metadata.std),
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }


def _preprocessor(loaded: LoadedBackbone) -> dict[str, object]:
    metadata = loaded.metadata
    side = metadata.image_size or _DEFAULT_IMAGE_SIZE_PIXELS
    return {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "crop_pct": _CROP_PCT,
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
