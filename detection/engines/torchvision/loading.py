"""Load a trained detector of either engine into this one, from its file alone."""

from pathlib import Path
from typing import NamedTuple

import torch

from detection.engines.torchvision.detector import MaskRCNN, assemble
from detection.exchange.model_config import describe_model
from detection.exchange.trained import read_trained
from detection.job.detector_card import DetectorCard
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.metadata import BackboneMetadata
from rsa_pretrain.weights.tensor_check import check_tensors


class LoadedDetector(NamedTuple):
    """A detector ready for inference."""

    detector: MaskRCNN
    """On the CPU, in eval mode."""
    card: DetectorCard
    metadata: BackboneMetadata
    file: Path
    """The file it was read from."""
    num_classes: int
    """Categories, without the background."""


def load_detector(path: Path) -> LoadedDetector:
    """Load a detector trained by either engine or by detectron2's own programs.

    Args:
        path: Any detector that ``read_trained`` accepts.

    Raises:
        UserError: If ``read_trained`` refuses it, or a tensor is missing, unexpected, misshapen or
            not finite.
    """
    tensors, metadata, card, file = read_trained(path)
    found = describe_model(tensors, metadata.network.arch, card.model.anchors)
    pixels = Pixels(metadata.mean, metadata.std)
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced
        body = build_backbone(metadata.network)
        detector = assemble(found.model, card.sampling, body, pixels, found.num_classes)
    check_tensors(tensors, detector.state_dict(), f"'{file}' as a detector")
    detector.load_state_dict(tensors, strict=True)
    return LoadedDetector(detector.eval(), card, metadata, file, found.num_classes)
