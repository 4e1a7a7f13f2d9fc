"""A trained detector from its file alone: its tensors tell its architecture."""

from pathlib import Path

import torch

from detection.detectron2_model import describe_model
from detection.engines.torchvision.detector import MaskRCNN, assemble
from detection.exchange import anchors_of, read_detector
from detection.recipe import SamplingConfig
from rsa_pretrain.backbone import build_backbone
from rsa_pretrain.config import BackboneConfig
from rsa_pretrain.foreign.layout import Pixels
from rsa_pretrain.tensor_check import check_tensors


def load_detector(path: Path) -> tuple[MaskRCNN, int]:
    """Load a detector that this engine trained, or that was converted for it.

    Args:
        path: Run folder, checkpoint folder or safetensors file.

    Returns:
        The detector on the CPU, in eval mode, with the 1x recipe's numbers of proposals and
        detections; and its number of categories.

    Raises:
        UserError: If there is none, or a tensor is missing, left over, misshapen or not finite.
    """
    tensors, metadata, file = read_detector(path)
    found = describe_model(tensors, metadata.arch, anchors_of(metadata))
    pixels = Pixels(metadata.mean, metadata.std)
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced
        body = build_backbone(BackboneConfig(arch=metadata.arch, stem="standard"))
        detector = assemble(found.model, SamplingConfig(), body, pixels, found.num_classes)
    check_tensors(tensors, detector.state_dict(), f"'{file}' as a detector")
    detector.load_state_dict(tensors, strict=True)
    return detector.eval(), found.num_classes
