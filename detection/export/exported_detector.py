"""Bundle a detector for export: its network, and the information that users of the file need."""

import json
from dataclasses import dataclass

from detection.coco.categories import Categories
from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.loading import LoadedDetector
from detection.engines.torchvision.regions import SCORE_THRESHOLD
from detection.export.graph import MARK
from detection.recipe.recipe import InputConfig
from rsa_pretrain.weights.checkpoint import file_sha256


@dataclass(frozen=True)
class ExportedDetector:
    """A trained detector, and how to use it."""

    loaded: LoadedDetector
    categories: Categories
    """COCO entries in order of label, from label 1."""
    input: InputConfig
    """Test size."""

    @property
    def detector(self) -> MaskRCNN:
        """The network, on the CPU, in eval mode."""
        return self.loaded.detector

    def input_text(self) -> str:
        """Describe the exported file's inputs."""
        return (
            "image: RGB, uint8, (3, H, W), resized bilinearly with antialiasing (as Pillow does) "
            f"to a short side of {self.input.test_short_side_pixels} pixels, or less so that the "
            f"long side is at most {self.input.max_side_pixels}; score_threshold: detections score "
            f"above it (default {SCORE_THRESHOLD})"
        )

    def output_text(self) -> str:
        """Describe the exported file's outputs."""
        side = self.detector.roi_heads.MASK_SIDE
        masks = (
            f"; masks (D, {side}, {side}), probabilities: resize each bilinearly to its box; "
            "pixels of at least 0.5 belong to the object"
        )
        return (
            "boxes (D, 4), x0 y0 x1 y1 in pixels of the resized image; labels (D,), from 1; "
            "scores (D,), highest first" + (masks if self.detector.roi_heads.has_mask_head else "")
        )

    def properties(self) -> dict[str, str]:
        """Return the texts to store in the file, by name; all but the last two are JSON."""
        sampling = self.loaded.card.sampling
        return {
            MARK: self.loaded.metadata.model_dump_json(),
            "source_sha256": json.dumps(file_sha256(self.loaded.file)),
            "categories": json.dumps(self.categories),
            "short_side_pixels": json.dumps(self.input.test_short_side_pixels),
            "max_side_pixels": json.dumps(self.input.max_side_pixels),
            "exif_orientation": json.dumps(self.loaded.card.exif_orientation),
            "proposals_per_image": json.dumps(sampling.proposals_per_image),
            "detections_per_image": json.dumps(sampling.detections_per_image),
            "score_threshold": json.dumps(SCORE_THRESHOLD),
            "input": self.input_text(),
            "output": self.output_text(),
        }
