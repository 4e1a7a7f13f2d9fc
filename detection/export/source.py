"""A detector as an export needs it: its network, and what users of the file have to know."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.loading import load_detector
from detection.engines.torchvision.regions import SCORE_THRESHOLD
from detection.exchange import read_detector
from detection.export.graph import MARK
from detection.label_categories import Categories, categories_of
from detection.recipe import InputConfig
from rsa_pretrain.checkpoint import BackboneMetadata, file_sha256


@dataclass(frozen=True)
class Source:
    """A trained detector with its facts."""

    detector: MaskRCNN
    """On the CPU, in eval mode."""
    categories: Categories
    """COCO's entries, in the order of the labels, from label 1."""
    input: InputConfig
    """Test size."""
    metadata: BackboneMetadata
    sha256: str
    """Of the file of weights."""

    def input_text(self) -> str:
        """Say what the exported file takes."""
        return (
            "image: RGB, uint8, (3, H, W), resized bilinearly with antialiasing (as Pillow does) "
            f"to a short side of {self.input.test_short_side_pixels} pixels, or to a long side of "
            f"{self.input.max_side_pixels} where it would be longer; score_threshold: detections "
            f"score above it, {SCORE_THRESHOLD} unless stated"
        )

    def output_text(self) -> str:
        """Say what the exported file gives."""
        masks = (
            "; masks (D, 28, 28), probabilities: each covers its box, and what is at least 0.5 "
            "once it is resized to it bilinearly is the object"
        )
        return (
            "boxes (D, 4), x0 y0 x1 y1 in pixels of the resized image; labels (D,), from 1; "
            "scores (D,), highest first" + (masks if self.detector.roi_heads.has_mask_head else "")
        )

    def properties(self) -> dict[str, str]:
        """Return what is kept in the file, texts by name; all but two are JSON."""
        return {
            MARK: self.metadata.model_dump_json(),
            "source_sha256": json.dumps(self.sha256),
            "categories": json.dumps(self.categories),
            "short_side_pixels": json.dumps(self.input.test_short_side_pixels),
            "max_side_pixels": json.dumps(self.input.max_side_pixels),
            "input": self.input_text(),
            "output": self.output_text(),
        }


def read_source(path: Path, categories: Path | None, sides: Sequence[int | None]) -> Source:
    """Load a detector and what is known of it.

    Args:
        path: Run folder, checkpoint folder or file.
        categories: COCO-format file that names the categories; None takes the detector's own.
        sides: Short and greatest long side of the input, in pixels; None takes the default.

    Raises:
        UserError: If there is no such detector, or the categories are another number.
    """
    detector, num_classes = load_detector(path)
    _, metadata, file = read_detector(path)
    names = ("test_short_side_pixels", "max_side_pixels")
    stated = {name: side for name, side in zip(names, sides, strict=True) if side is not None}
    return Source(
        detector=detector,
        categories=categories_of(path, num_classes, categories),
        input=InputConfig().model_copy(update=stated),
        metadata=metadata,
        sha256=file_sha256(file),
    )
