"""Export to torchvision, whose names are also this toolkit's."""

from pathlib import Path

import torch
from torch import Tensor

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.targets.base import ExportTarget
from rsa_pretrain.weights.files.saving import save_torch


def write(loaded: LoadedBackbone, path: Path) -> None:
    """Write the bare state dict."""
    save_torch(dict(loaded.backbone.state_dict()), path)


def features(loaded: LoadedBackbone, path: Path, images: Tensor) -> Tensor:
    """Load strictly into a new network, and return its features."""
    network = build_backbone(loaded.metadata.network).eval()
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    with torch.inference_mode():
        result: Tensor = network(images)
    return result


TORCHVISION = ExportTarget(
    name="torchvision",
    suffix=".pth",
    stems=("standard", "cifar"),
    write=write,
    packages=("torchvision",),
    features=features,
    layout="torchvision",
    advice="model = torchvision.models.ARCH(); model.fc = torch.nn.Identity(); "
    "model.load_state_dict(torch.load('OUT', weights_only=True))",
)
