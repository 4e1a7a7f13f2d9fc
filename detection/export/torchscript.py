"""Export to TorchScript, for ``torch.jit.load`` and LibTorch with torchvision's operators.

Traced on the CPU, it runs there only: a trace fixes the device of intermediate tensors.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.regions import SCORE_THRESHOLD, Detections
from detection.export.graph import DetectorFormat, DetectorGraph, RunDetector, example


class _WithThreshold(nn.Module):
    """A traced detector whose threshold is optional."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor, score_threshold: float = SCORE_THRESHOLD) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.detector(image, torch.tensor(score_threshold))
        return found


def write(detector: MaskRCNN, properties: Mapping[str, str], path: Path) -> None:
    """Trace the detector on one image; suppression, which branches on sizes, is scripted."""
    scripted_nms = torch.jit.script_if_tracing(batched_nms)  # type: ignore[no-untyped-call]

    def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, limit: int) -> Tensor:
        kept: Tensor = scripted_nms(boxes, scores, groups, iou)
        return kept[:limit]

    graph = DetectorGraph(detector, suppress)
    recorded = torch.jit.trace(graph, example(), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    module = torch.jit.script(_WithThreshold(recorded))
    with path.open("wb") as file:
        torch.jit.save(module, file, _extra_files=dict(properties))


def load(path: Path) -> RunDetector:
    """Load the file as a user would."""
    module = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def run(image: Tensor, score_threshold: float) -> Detections:
        with torch.inference_mode():
            found: Detections = module(image, score_threshold)
        return found

    return run


TORCHSCRIPT = DetectorFormat(
    name="torchscript",
    suffix=".pt",
    packages=(),
    write=write,
    load=load,
    advice="import torchvision; torch.jit.load('OUT')(image), on the CPU",
)
