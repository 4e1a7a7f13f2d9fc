"""Keep how a detector's detections match the objects of each image, compactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_SIZES = 4
"""COCO's ranges of object sizes: all, small, medium and large."""
NUM_OVERLAPS = 10
"""COCO's overlaps, from IoU 0.50 to 0.95."""
_TYPES: dict[str, type[np.generic]] = {
    "extent": np.int64,
    "images": np.int32,
    "categories": np.int32,
    "scores": np.float64,
    "matched": np.uint8,
    "ignored": np.uint8,
    "object_images": np.int32,
    "object_categories": np.int32,
    "num_objects": np.int32,
}
_NUM_FLAGS = NUM_SIZES * NUM_OVERLAPS
_NUM_BYTES = -(-_NUM_FLAGS // 8)


@dataclass(frozen=True)
class DetectionMatches:
    """The matches of one detector by one IoU type, as COCO's evaluation makes them.

    Images and categories are numbered from 0 by rising id. The D detections stand in order of
    category and, within one, in the order in which pycocotools ranks them: by falling score, those
    of equal score by image. Those beyond the limit per image and category are left out.
    """

    num_images: int
    num_categories: int
    images: NDArray[np.int32]
    """Image of each detection, (D,)."""
    categories: NDArray[np.int32]
    """Category of each detection, (D,)."""
    scores: NDArray[np.float64]
    """(D,)."""
    matched: NDArray[np.uint8]
    """True if a detection matches an object or crowd, by size and overlap; see ``pack_flags``."""
    ignored: NDArray[np.uint8]
    """True if a detection counts neither as right nor as wrong, by size and overlap."""
    object_images: NDArray[np.int32]
    """Images of the P pairs of an image and a category with objects, (P,)."""
    object_categories: NDArray[np.int32]
    """Their categories, in rising order, (P,)."""
    num_objects: NDArray[np.int32]
    """Number of objects of each pair by size, (P, sizes); crowds are not counted."""

    def __post_init__(self) -> None:
        num_detections, num_pairs = len(self.images), len(self.object_images)
        shapes = {
            "images": (num_detections,),
            "categories": (num_detections,),
            "scores": (num_detections,),
            "matched": (num_detections, _NUM_BYTES),
            "ignored": (num_detections, _NUM_BYTES),
            "object_images": (num_pairs,),
            "object_categories": (num_pairs,),
            "num_objects": (num_pairs, NUM_SIZES),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} of detection matches are {found}, expected {shape}")
        _check_range("images", self.images, self.num_images)
        _check_range("object_images", self.object_images, self.num_images)
        _check_range("categories", self.categories, self.num_categories)
        _check_range("object_categories", self.object_categories, self.num_categories)
        if (np.diff(self.object_categories) < 0).any() or (self.num_objects < 0).any():
            raise ValueError("objects of detection matches are out of order or negative in number")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores of detection matches are not finite")
        steps = np.diff(self.categories)
        if (steps < 0).any() or (np.diff(self.scores)[steps == 0] > 0).any():
            raise ValueError("detections are not in order of category and falling score")


def pack_flags(flags: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack flags of detections, (D, sizes, overlaps), into bits, (D, 5)."""
    return np.packbits(flags.reshape(len(flags), _NUM_FLAGS), axis=1)


def unpack_flags(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the flags that ``pack_flags`` packed."""
    flags = np.unpackbits(packed, axis=1, count=_NUM_FLAGS).astype(bool)
    return flags.reshape(len(packed), NUM_SIZES, NUM_OVERLAPS)


def arrays(matches: DetectionMatches) -> dict[str, NDArray[Any]]:
    """Return the arrays to store; numbers are as narrow as is possible without loss."""
    with np.errstate(over="ignore", under="ignore"):
        scores = matches.scores.astype(np.float32)
    return {
        "extent": np.array([matches.num_images, matches.num_categories], np.int64),
        "images": matches.images,
        "categories": _narrow(matches.categories),
        "scores": scores if np.array_equal(scores, matches.scores) else matches.scores,
        "matched": matches.matched,
        "ignored": matches.ignored,
        "object_images": matches.object_images,
        "object_categories": _narrow(matches.object_categories),
        "num_objects": _narrow(matches.num_objects),
    }


def from_arrays(stored: Mapping[str, NDArray[Any]]) -> DetectionMatches:
    """Return the matches that ``arrays`` gave.

    Raises:
        ValueError: If an array is missing, or types, shapes, order or ranges are not those of
            matches.
    """
    missing = [name for name in _TYPES if name not in stored]
    if missing:
        raise ValueError(f"detection matches lack {', '.join(missing)}")
    for name, kind in _TYPES.items():
        if not np.can_cast(stored[name].dtype, kind):
            raise ValueError(
                f"{name} of detection matches are {stored[name].dtype}, expected {np.dtype(kind)}"
            )
    if stored["extent"].shape != (2,):
        raise ValueError(f"extent of detection matches is {stored['extent'].shape}, expected (2,)")
    widened: dict[str, Any] = {name: stored[name].astype(kind) for name, kind in _TYPES.items()}
    num_images, num_categories = widened.pop("extent").tolist()
    return DetectionMatches(num_images=num_images, num_categories=num_categories, **widened)


def _narrow(values: NDArray[np.int32]) -> NDArray[Any]:
    """Store values in 16 bits if they fit."""
    narrow = values.astype(np.int16)
    return narrow if np.array_equal(narrow, values) else values


def _check_range(name: str, values: NDArray[np.int32], end: int) -> None:
    if values.size and not 0 <= values.min() <= values.max() < end:
        raise ValueError(
            f"{name} of detection matches are {values.min()} to {values.max()}, expected 0 to "
            f"{end - 1}"
        )
