"""Prove on three images that an exported file's detections match the engine's one to one."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detection.coco.image_list import list_images
from detection.coco.images import read_image
from detection.coco.shapes import draw_image
from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.regions import SCORE_THRESHOLD, Detections
from detection.export.graph import RunDetector
from detection.feeding.samples import TestSample, resized
from detection.recipe.recipe import InputConfig
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.plumbing.errors import UserError

TOLERANCES = {"boxes": 1e-3, "scores": 1e-4, "masks": 1e-4}
"""Largest differences, in pixels and in probabilities. Libraries sum in different orders, and a
coordinate of 1,000 pixels is rounded to 0.00006, which affects the score of a small object."""
_UNITS = {"boxes": " px"}
# Height and width of the drawn images before resizing: three shapes.
_DRAWN_SIZES = ((360, 480), (480, 480), (480, 240))
NUM_PROOF_IMAGES = len(_DRAWN_SIZES)


@dataclass(frozen=True)
class ExportProof:
    """Detections compared, and their largest differences."""

    num_images: int
    num_detections: int
    score_threshold: float
    largest: Mapping[str, float]
    is_bare: bool
    """True if one of the images has no detection."""

    def text(self) -> str:
        """Return the proof in one line."""
        differences = ", ".join(
            f"{name} {value:.1e}{_UNITS.get(name, '')}" for name, value in self.largest.items()
        )
        return (
            f"{self.num_detections} detections of score above {self.score_threshold:g} on "
            f"{self.num_images} images match the engine's one to one"
            + (f"; largest differences: {differences}" if differences else "")
        )


def proof_images(
    words: Iterable[Path], settings: InputConfig, rules: ReadRules
) -> dict[str, Tensor]:
    """Return the first three images of folders and files, with drawn ones to make up the number.

    Args:
        words: Folders and files.
        settings: Test size.
        rules: How to read them.

    Returns:
        RGB, (3, H, W), uint8, by name in messages.

    Raises:
        UserError: If one cannot be read.
    """
    photos = {str(path): read_image(path, rules) for path in _first_files(words, rules)}
    for height, width in _DRAWN_SIZES[len(photos) :]:
        pixels, _ = draw_image(max(height, width), np.random.default_rng(height + width))
        photos[f"drawn image of {width}x{height}"] = Image.fromarray(pixels[:height, :width])
    return {name: _at_test_size(photo, settings) for name, photo in photos.items()}


def prove(run: RunDetector, detector: MaskRCNN, images: Mapping[str, Tensor]) -> ExportProof:
    """Compare a loaded file's detections with the engine's.

    If the engine finds nothing in an image at its score threshold, all scored boxes are compared.

    Raises:
        UserError: If one differs.
    """
    proof = _prove_at(SCORE_THRESHOLD, run, detector, images)
    return _prove_at(0.0, run, detector, images) if proof.is_bare else proof


def _prove_at(
    threshold: float, run: RunDetector, detector: MaskRCNN, images: Mapping[str, Tensor]
) -> ExportProof:
    largest: dict[str, float] = {}
    counts = []
    for name, image in images.items():
        sample = TestSample(image, image_id=0, height=image.shape[1], width=image.shape[2])
        with torch.inference_mode():
            (expected,) = detector([sample], threshold)
        assert isinstance(expected, dict), "a detector in eval mode returns detections"
        found = run(image, threshold)
        pairs = _pairs(expected, found)
        _check_left_over(pairs, expected, found, threshold, detector, name)
        counts.append(len(pairs))
        for key, difference in _differences(expected, found, pairs).items():
            largest[key] = max(largest.get(key, 0.0), difference)
    return ExportProof(len(images), sum(counts), threshold, largest, is_bare=0 in counts)


def _pairs(expected: Detections, found: Detections) -> list[tuple[int, int]]:
    """Match detections within the tolerances, each at most once; return pairs of indices."""
    free = list(range(len(found["labels"])))
    pairs = []
    for one in range(len(expected["labels"])):
        for other in free:
            if expected["labels"][one] == found["labels"][other] and all(
                value <= TOLERANCES[key]
                for key, value in _differences(expected, found, [(one, other)]).items()
            ):
                pairs.append((one, other))
                free.remove(other)
                break
    return pairs


def _differences(
    expected: Detections, found: Detections, pairs: list[tuple[int, int]]
) -> dict[str, float]:
    """Return the largest difference of each kind over pairs of detections."""
    if not pairs:
        return {}
    ones, others = (list(side) for side in zip(*pairs, strict=True))
    return {
        key: float((expected[key][ones] - found[key][others]).abs().max())
        for key in TOLERANCES
        if key in expected
    }


def _check_left_over(
    pairs: list[tuple[int, int]],
    expected: Detections,
    found: Detections,
    threshold: float,
    detector: MaskRCNN,
    name: str,
) -> None:
    """Refuse detections without a counterpart.

    Those whose scores are within the tolerance of the cut-off may be missing on either side,
    because rounding decides.
    """
    is_full = len(expected["scores"]) == detector.roi_heads.detections_per_image
    lowest = float(expected["scores"].min()) if is_full else threshold
    left_over = []
    for detections, side in ((expected, 0), (found, 1)):
        matched = {pair[side] for pair in pairs}
        left_over.append(
            sum(
                index not in matched and score > lowest + TOLERANCES["scores"]
                for index, score in enumerate(detections["scores"].tolist())
            )
        )
    if any(left_over):
        raise UserError(
            f"the exported file's detections differ from the detector's in '{name}', at score "
            f"threshold {threshold:g}: {left_over[0]} of the detector's {len(expected['scores'])} "
            f"detections have no counterpart within {TOLERANCES['boxes']:g} px and a score of "
            f"{TOLERANCES['scores']:g}, {left_over[1]} of the file's {len(found['scores'])}; "
            "nothing was written"
        )


def _first_files(words: Iterable[Path], rules: ReadRules) -> list[Path]:
    files = itertools.chain.from_iterable(
        [word / entry["file_name"] for entry in list_images(word, rules)]
        if word.is_dir()
        else [word]
        for word in words
    )
    return list(itertools.islice(files, NUM_PROOF_IMAGES))


def _at_test_size(photo: Image.Image, settings: InputConfig) -> Tensor:
    height, width = resized(
        (photo.height, photo.width), settings.test_short_side_pixels, settings.max_side_pixels
    )
    pixels = np.array(photo.resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
