"""Export to MMPretrain: ``backbone.`` before every name, plus the preprocessor's values."""

import importlib
from pathlib import Path

import torch
from torch import Tensor

from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.targets.base import ExportTarget
from rsa_pretrain.weights.files.saving import save_torch
from rsa_pretrain.weights.metadata import METADATA_KEY

_PREFIX = "backbone."


def write(loaded: LoadedBackbone, path: Path) -> None:
    """Write the state dict; ``meta`` stores the data preprocessor's values, in 0–255."""
    state = {f"{_PREFIX}{name}": tensor for name, tensor in loaded.backbone.state_dict().items()}
    metadata = loaded.metadata
    preprocessor = {
        "mean": [255 * value for value in metadata.mean],
        "std": [255 * value for value in metadata.std],
        "to_rgb": True,
    }
    meta = {"data_preprocessor": preprocessor, METADATA_KEY: metadata.model_dump_json()}
    save_torch({"meta": meta, "state_dict": state}, path)


def features(loaded: LoadedBackbone, path: Path, images: Tensor) -> Tensor:
    """Load strictly into MMPretrain's ResNet, and return its features."""
    models = importlib.import_module("mmpretrain.models")
    network = models.ResNet(depth=int(loaded.metadata.arch.removeprefix("resnet"))).eval()
    state = torch.load(path, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix(_PREFIX): state[name] for name in state})
    with torch.inference_mode():
        result: Tensor = network(images)[-1].mean(dim=(2, 3))
    return result


MMPRETRAIN = ExportTarget(
    name="mmpretrain",
    suffix=".pth",
    stems=("standard",),
    write=write,
    packages=("mmpretrain",),
    features=features,
    layout="mmpretrain",
    advice="backbone=dict(type='ResNet', depth=DEPTH, style='pytorch', "
    "init_cfg=dict(type='Pretrained', checkpoint='OUT', prefix='backbone'))",
)
