"""Keep an evaluation's answer to each test image, in a file beside the record.

``NAME.json`` names ``NAME.predictions.npz`` and its SHA-256. From it come the intervals of the
record's metrics and, with the same images' answers of other weights, paired comparisons.
"""

import hashlib
import io
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.detection_predictions import DetectionPredictions
from rsa_eval.records.mask_predictions import MaskPredictions
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_eval.records.record import PredictionsFile, Record
from rsa_eval.statistics.intervals import FloatArray, Interval
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.plumbing.regular_files import open_regular

Arrays = Mapping[str, npt.NDArray[Any]]

_MOST_BYTES = 2**32
_FORM, _KEYS = "form", "keys"
# Whatever zipfile and NumPy raise at damage; a header may claim any size.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, OSError, EOFError),
    *(ValueError, TypeError, SyntaxError, LookupError, AttributeError, OverflowError),
    *(RuntimeError, MemoryError, SystemError, Warning),
)


class Predictions(Protocol):
    """Answers to N test images."""

    form: ClassVar[str]
    """Name of the kind of answers."""

    @property
    def num_images(self) -> int:
        """N."""

    def value(self, metric: str) -> float | None:
        """Return a metric in percent; None if it is not of these answers."""

    def per_image(self, metric: str) -> FloatArray | None:
        """Return each image's share of a metric in percent, (N,); None if it is no mean."""

    @staticmethod
    def replicates(several: Any, metric: str) -> FloatArray:
        """Return the metric of several answers to the same images under resamples, (B, M).

        Columns of one call share the resamples.
        """

    def smallest_group(self, metric: str) -> int:
        """Return the images behind the least certain part of a metric, such as a class."""

    def is_of_same_truth(self, other: Any) -> bool:
        """Return whether other answers of this form are judged by the same annotation."""

    def interval(self, metric: str) -> tuple[Interval, str] | None:
        """Return a metric's 95 % interval over images, and its method; None if not theirs."""

    def arrays(self) -> Arrays:
        """Return the answers as arrays to store."""


_FORMS: dict[str, Callable[[Arrays], Predictions]] = {
    ClassPredictions.form: ClassPredictions.from_arrays,
    RankingPredictions.form: RankingPredictions.from_arrays,
    DetectionPredictions.form: DetectionPredictions.from_arrays,
    MaskPredictions.form: MaskPredictions.from_arrays,
}


@dataclass(frozen=True)
class KeyedPredictions:
    """Answers with the names of the images."""

    keys: tuple[str, ...]
    """A unique name of each image, the same wherever the images are stored."""
    predictions: Predictions


def encode_predictions(keys: Sequence[str], predictions: Predictions) -> bytes:
    """Return a compressed ``.npz``; the same answers give the same bytes."""
    assert len(keys) == predictions.num_images
    buffer = io.BytesIO()
    names = np.frombuffer(json.dumps(list(keys)).encode(), np.uint8)
    named = {_FORM: np.array(predictions.form), _KEYS: names, **predictions.arrays()}
    np.savez_compressed(buffer, allow_pickle=False, **named)
    return buffer.getvalue()


def decode_predictions(content: bytes) -> KeyedPredictions:
    """Read what ``encode_predictions`` wrote, without unpickling anything.

    Raises:
        ValueError: If it is no such file; says why.
    """
    try:
        arrays = _arrays_of(content)
        form, names = str(arrays.pop(_FORM)), arrays.pop(_KEYS)
        read = _FORMS[form]
    except _UNREADABLE as error:
        raise ValueError(f"it is no file of predictions ({error})") from None
    try:
        predictions = read(arrays)
    except KeyError as error:
        raise ValueError(f"its answers lack {error}") from None
    except SystemError:  # of NumPy, for text that is no text
        raise ValueError("its answers are damaged") from None
    try:
        keys = parse_json(names.tobytes())
    except ValueError:
        keys = None
    if not isinstance(keys, list):
        raise ValueError("its names of images are no JSON list")
    if len(keys) != predictions.num_images:
        raise ValueError(f"it names {len(keys)} images and answers {predictions.num_images}")
    return KeyedPredictions(tuple(map(str, keys)), predictions)


def _arrays_of(content: bytes) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MOST_BYTES:
        raise ValueError(f"it unpacks to {size:,} bytes, more than {_MOST_BYTES:,}")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = dict(archive)
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it has members that are no arrays")
    return arrays


def file_of(
    keys: Sequence[str], predictions: Predictions, record: Path
) -> tuple[PredictionsFile, bytes]:
    """Return a record's entry for its predictions, and the content of their file."""
    content = encode_predictions(keys, predictions)
    name = predictions_path(record).name
    return PredictionsFile(file=name, sha256=hashlib.sha256(content).hexdigest()), content


def predictions_path(record: Path) -> Path:
    """Return the path of the predictions of a record's file."""
    return record.with_suffix(".predictions.npz")


def read_predictions(path: Path, record: Record) -> KeyedPredictions:
    """Read the predictions of a record.

    Args:
        path: The record's file.
        record: Its content.

    Raises:
        UserError: If the record has none, or their file is missing, changed or damaged.
    """
    if record.predictions is None:
        raise UserError(
            f"'{path}' has no predictions by image: it was made by an earlier version, or an "
            "evaluation without labelled test images; evaluate again to keep them"
        )
    file = path.parent / record.predictions.file
    try:
        with open_regular(file) as opened:
            content = opened.read()
    except OSError as error:
        raise UserError(
            f"cannot read '{file}', the predictions of '{path.name}': {error.strerror}; put it "
            "back beside the record, or evaluate again"
        ) from None
    if hashlib.sha256(content).hexdigest() != record.predictions.sha256:
        raise UserError(
            f"'{file}' has another SHA-256 than '{path.name}' states; put the record's own file "
            "back, or evaluate again"
        )
    try:
        return decode_predictions(content)
    except ValueError as error:
        raise UserError(f"'{file}' cannot be used: {error}; evaluate again") from None
