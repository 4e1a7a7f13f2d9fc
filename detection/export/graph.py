"""Define an exported detector's interface: one image in, its detections out."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detection.engines.torchvision.boxes import Suppress
from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.regions import Detections
from detection.feeding.samples import TestSample

IMAGE, SCORE_THRESHOLD = "image", "score_threshold"
"""Names of the inputs."""
MARK = "rsa_toolkit_detector"
"""The property that identifies files written here; it contains the provenance."""

RunDetector = Callable[[Tensor, float], Detections]
"""An exported file, loaded: image (3, H, W), uint8, and score threshold to detections."""


@dataclass(frozen=True)
class DetectorFormat:
    """A file format with its writer and runtime."""

    name: str
    suffix: str
    packages: tuple[str, ...]
    """Packages required besides torch."""
    write: Callable[[MaskRCNN, Mapping[str, str], Path], None]
    """Writes the detector with properties, texts by name."""
    load: Callable[[Path], RunDetector]
    advice: str
    """Code that runs OUT."""
    loggers: tuple[str, ...] = ()
    """Loggers to silence during an export."""


class DetectorGraph(nn.Module):
    """The engine's detector for one image, with arguments named like the file's inputs.

    Args:
        detector: Copied.
        suppress: Non-maximum suppression in a form that the file format supports.
    """

    def __init__(self, detector: MaskRCNN, suppress: Suppress) -> None:
        super().__init__()
        self.detector = deepcopy(detector).cpu().eval().requires_grad_(False)
        self.detector.rpn.suppress = suppress
        self.detector.roi_heads.suppress = suppress

    def forward(self, image: Tensor, score_threshold: Tensor) -> Detections:
        """Return ``boxes``, ``labels``, ``scores`` and, of a detector that has them, ``masks``.

        Args:
            image: 8-bit RGB, already of the input size, (3, H, W).
            score_threshold: Detections score above it, ().
        """
        sample = TestSample(image, image_id=0, height=image.shape[1], width=image.shape[2])
        (found,) = self.detector([sample], score_threshold)
        assert isinstance(found, dict), "a detector in eval mode returns detections"
        return found


def example() -> tuple[Tensor, Tensor]:
    """Return noise to trace with; no side of its maps is 1, which tracing would fix.

    At threshold 0 any detector has detections.
    """
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 160, 220), generator=random, dtype=torch.uint8)
    return image, torch.tensor(0.0)


def output_names(detector: MaskRCNN) -> list[str]:
    """Return the names of the graph's outputs, in order."""
    return ["boxes", "labels", "scores", *(["masks"] if detector.roi_heads.has_mask_head else [])]
