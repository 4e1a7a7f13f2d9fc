"""Read features that were extracted elsewhere, with their labels, from files of arrays."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from rsa_eval.features.array_files import (
    Array,
    check_readable,
    map_npy,
    read_npz,
    read_safetensors,
)
from rsa_eval.features.given_settings import MOST_CLASSES
from rsa_eval.features.identity import FeatureIdentity
from rsa_eval.features.labelled import LabelledFeatures
from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import require_memory
from rsa_pretrain.plumbing.user_paths import as_text
from rsa_pretrain.weights.checkpoint import file_sha256

_NAMES = (("features", "labels"), ("X", "y"), ("x", "y"))
_EXPECTED = (
    "a .npz or .safetensors file with arrays features (N, D) and labels (N), or NAME.npy with its "
    "labels in NAME_labels.npy"
)
_INTEGERS_OF_LABELS = (
    "store labels.astype(int), or for names numpy.unique(labels, return_inverse=True)[1], of the "
    "training and the test labels together"
)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_NUMBERS_AT_ONCE = 2**20
# Beyond these, float32 lengths of features overflow, or are below what keeps a division sound.
_SMALLEST, _LARGEST = 1e-10, 1e15
_FEATURES, _LABELS = "_features", "_labels"
# Of a cache of this toolkit, whose header states the features' origin and the content's checksum.
_IDENTITY, _SHA256 = "rsa_features", "sha256"
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class GivenFeatures:
    """Features of a file, and what a record says of it."""

    path: Path
    labelled: LabelledFeatures
    """float32, on the CPU, perhaps mapped from the file."""
    stored_type: str
    """Type of the stored features, such as float16."""
    sha256: dict[str, str]
    """SHA-256 of each file, by its name."""
    identity: FeatureIdentity | None
    """The origin of the features of a cache of this toolkit; None for other files."""

    def facts(self) -> dict[str, Any]:
        """Describe the file for a record's details."""
        labels = self.labelled.labels.numpy().tobytes()
        return {
            "files": self.sha256,
            "shape": list(self.labelled.features.shape),
            "dtype": self.stored_type,
            "labels_sha256": hashlib.sha256(labels).hexdigest(),
            "identity": None if self.identity is None else to_tree(self.identity),
        }


def read_features(path: str | Path) -> LabelledFeatures:
    """Read features made by anything, with their labels.

    A ``.npz`` or ``.safetensors`` file has arrays ``features``, (N, D), and ``labels``, (N), or
    ``X`` and ``y``, or ``x`` and ``y``; further arrays are not read. The labels of a ``.npy`` file
    are in another beside it: those of ``train.npy``, as those of ``train_features.npy``, in
    ``train_labels.npy``. Features are float32, float16, bfloat16 or float64, labels integers:
    class indices from 0 on, ``UNLABELLED`` (-1) for an image without class.

        train, test = read_features("train.npz"), read_features("test.npz")
        knn(train, test).value

    Args:
        path: The file; of a ``.npy`` pair that of the features.

    Returns:
        Features as float32, labels as int64. Features of a ``.npy`` or safetensors file that are
        float32 already are mapped from it: leave the file as it is while they are in use.

    Raises:
        UserError: If a file is missing, damaged or holds pickled objects, a type or shape is
            another, lengths differ, features are not finite or of a size that float32 cannot
            handle, or a label is no class index.
    """
    return read_given(Path(path)).labelled


def read_given(path: Path) -> GivenFeatures:
    """Read a file as ``read_features`` does, with what a record says of it.

    Raises:
        UserError: As ``read_features``.
    """
    check_readable(path, _EXPECTED)
    features: Array | Tensor
    labels: Array | Tensor
    identity, files = None, [path]
    if path.suffix == ".npz":
        features, labels = read_npz(path, _NAMES).values()
    elif path.suffix == ".npy":
        features = map_npy(path)  # an error of the file named comes first
        files.append(_labels_of(path))
        labels = map_npy(files[-1])
    elif path.suffix == ".safetensors":
        tensors, texts = read_safetensors(path, _NAMES)
        features, labels = tensors.values()
        identity = _identity_of_cache(path, texts)
    else:
        raise UserError(f"'{path}' ends in '{path.suffix}'; expected {_EXPECTED}")
    checked = _checked(features, labels, path, files[-1])
    hashes = {as_text(file.name): file_sha256(file) for file in files}
    stored_type = str(features.dtype).removeprefix("torch.")
    return GivenFeatures(path, checked, stored_type, hashes, identity)


def _labels_of(path: Path) -> Path:
    """Return the file of the labels of a ``.npy`` file of features."""
    labels = path.with_name(f"{path.stem.removesuffix(_FEATURES)}{_LABELS}.npy")
    if path.stem.endswith(_LABELS):
        raise UserError(f"'{path}' is named like a file of labels; give that of the features")
    check_readable(labels, f"the labels of '{path.name}'")
    return labels


def _checked(
    features: Array | Tensor, labels: Array | Tensor, path: Path, labels_path: Path
) -> LabelledFeatures:
    """Check and convert what a file holds."""
    shape, num_labels = tuple(features.shape), tuple(labels.shape)
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"'{path}' has features of shape {shape}; expected (N, D), neither 0")
    if len(num_labels) != 1:
        raise UserError(f"'{labels_path}' has labels of shape {num_labels}; expected ({shape[0]},)")
    if num_labels[0] != shape[0]:
        owner = "" if labels_path == path else f"'{path}' has "
        raise UserError(
            f"'{labels_path}' has {num_labels[0]:,} labels, but {owner}features of {shape[0]:,} "
            "images; expected a label for each"
        )
    indices = _class_indices(labels, labels_path)  # before the longer work
    return LabelledFeatures(_finite_float32(features, path), indices)


def _class_indices(labels: Array | Tensor, path: Path) -> Tensor:
    if isinstance(labels, Tensor):
        is_integer = labels.dtype != torch.bool and not (
            labels.is_floating_point() or labels.is_complex()
        )
        found = labels.numpy() if is_integer else np.empty(0)
    else:
        found = labels
        is_integer = found.dtype.kind in "iu"
    if not is_integer:
        raise UserError(
            f"'{path}' has labels of type {labels.dtype}; expected integers: {_INTEGERS_OF_LABELS}"
        )
    low, high = int(found.min()), int(found.max())
    if low < UNLABELLED:
        raise UserError(
            f"'{path}' has the label {low}; expected class indices from 0 on, {UNLABELLED} for an "
            "image without class"
        )
    if high >= MOST_CLASSES:
        raise UserError(
            f"'{path}' has the label {high}; expected class indices below {MOST_CLASSES:,}"
        )
    return torch.from_numpy(np.array(found, dtype=np.int64))


def _finite_float32(features: Array | Tensor, path: Path) -> Tensor:
    """Return features as float32 rows, the very memory where they are that already."""
    rows = features if isinstance(features, Tensor) else _native(features, path)
    if rows.dtype not in _FLOATS:
        raise UserError(
            f"'{path}' has features of type {features.dtype}; expected float32, float16, bfloat16 "
            "or float64: store features.float()"
        )
    is_ready = rows.dtype == torch.float32 and rows.is_contiguous()
    if not is_ready:
        what, advice = f"float32 copies of the features in '{path}'", "store them as float32"
        require_memory(4 * rows.numel(), what, advice)
    try:
        found = rows if is_ready else torch.from_numpy(np.empty(tuple(rows.shape), np.float32))
    except MemoryError:
        size = 4 * math.prod(rows.shape) / 2**30
        raise UserError(f"'{path}' takes {size:.1f} GiB of memory as float32") from None
    num_broken, largest = 0, 0.0
    at_once = max(1, _NUMBERS_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), at_once):
        block = found[start : start + at_once]
        if not is_ready:
            block.copy_(rows[start : start + at_once])
        num_broken += int((~block.isfinite()).any(dim=1).sum())
        largest = max(largest, float(block.max()), -float(block.min()))
    if num_broken:
        raise UserError(
            f"{num_broken:,} of {len(rows):,} images in '{path}' have features that are not finite "
            "in float32; expected finite numbers"
        )
    if not _SMALLEST <= largest <= _LARGEST:
        raise UserError(
            f"the largest feature in '{path}' is {largest:.3g} in size; expected {_SMALLEST:g} to "
            f"{_LARGEST:g}, as lengths of others are not computed soundly in float32: multiply all "
            "features, of training and test images, by one number"
        )
    return found


def _native(features: Array, path: Path) -> Tensor:
    """Return an array as a tensor, copied if its bytes are not laid out as this machine's are."""
    if features.dtype.kind != "f" or features.dtype.itemsize > 8:
        raise UserError(
            f"'{path}' has features of type {features.dtype}; expected float32, float16 or "
            "float64: store features.astype('float32')"
        )
    return torch.from_numpy(np.require(features, features.dtype.newbyteorder("="), "A"))


def _identity_of_cache(path: Path, texts: Mapping[str, str]) -> FeatureIdentity | None:
    """Check the checksum of a cache of this toolkit, and return what determines its features."""
    if _IDENTITY not in texts:
        return None
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(_LENGTH_BYTES), "little"), 1)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if texts.get(_SHA256) != found:
        raise UserError(
            f"'{path}' has another content than its checksum states; extract the features again"
        )
    try:
        return FeatureIdentity.model_validate_json(texts[_IDENTITY])
    except ValidationError:
        raise UserError(f"'{path}' has a damaged header; extract the features again") from None
