"""Export to timm, whose ResNets have torchvision's names."""

import importlib
from pathlib import Path

import torch
from torch import Tensor

from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.targets.base import ExportTarget
from rsa_pretrain.weights.files.saving import save_safetensors


def write(loaded: LoadedBackbone, path: Path) -> None:
    """Write the bare state dict as safetensors."""
    save_safetensors(loaded.backbone.state_dict(), path, {"format": "pt"})


def features(loaded: LoadedBackbone, path: Path, images: Tensor) -> Tensor:
    """Load as ``timm.create_model`` does, strictly."""
    timm = importlib.import_module("timm")
    network = timm.create_model(loaded.metadata.arch, num_classes=0, checkpoint_path=str(path))
    with torch.inference_mode():
        result: Tensor = network.eval()(images)
    return result


TIMM = ExportTarget(
    name="timm",
    suffix=".safetensors",
    stems=("standard",),
    write=write,
    packages=("timm",),
    features=features,
    layout="timm",
    advice="timm.create_model('ARCH', num_classes=0, checkpoint_path='OUT')",
    loggers=("timm",),
)
