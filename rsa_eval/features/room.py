"""Check that features fit into memory, before the first are extracted."""

from collections.abc import Iterable
from contextlib import nullcontext

from torch import nn

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.forward import FEATURE_DTYPES, device_of, feature_width
from rsa_eval.features.placement import home_of
from rsa_eval.features.share import Share, own_share
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.distributed import failing_together
from rsa_pretrain.plumbing.memory import require_memory

_FLOAT32_BYTES = 4
_CACHE = "set cache_dir=FOLDER, which keeps them in a file that is mapped into memory"
_FEWER = "take fewer images"


def check_memory(
    subject: Subject,
    config: EvaluationConfig,
    sets: Iterable[ImageSet],
    *,
    as_float32: bool = False,
    own_bytes: int = 0,
) -> None:
    """Refuse sets of images whose features do not fit into memory together.

    Args:
        subject: The backbone, on its device.
        config: Says whether the features are in a cache, and of which type they are.
        sets: Sets whose features are held at the same time.
        as_float32: Whether they are those of ``evaluation_features``.
        own_bytes: Bytes on the CPU that an evaluator needs beside each number.

    Raises:
        UserError: In all processes, if the memory is too small; says which setting helps.
    """
    itemsize = FEATURE_DTYPES[config.feature_dtype].itemsize
    is_converted = as_float32 and itemsize < _FLOAT32_BYTES
    held = 0 if config.cache_dir is not None else itemsize
    if is_converted:
        held, advice = _FLOAT32_BYTES, f"{_CACHE}, and feature_dtype=fp32"
    elif held == 0 or own_bytes:
        advice = f"{_FEWER} (data.num_train_images)"
    elif as_float32 or itemsize < _FLOAT32_BYTES:
        advice = _CACHE
    else:
        advice = f"{_CACHE}, or feature_dtype=fp16"
    width, counts = feature_width(subject.backbone, config), [len(images) for images in sets]
    sizes = [count * width * (held + own_bytes) for count in counts]
    if not own_bytes:
        sizes = [size for size in sizes if home_of(size, subject.device).type == "cpu"]
    _require(sum(sizes), sum(counts), advice, own_share())


def check_extraction(
    backbone: nn.Module, images: ImageSet, config: EvaluationConfig, share: Share
) -> None:
    """Refuse to extract features that do not fit into memory.

    Args:
        backbone: On its device.
        images: The images.
        config: The evaluation.
        share: This process's part; several processes hold all features twice for a moment.

    Raises:
        UserError: In all processes of the share, if the memory is too small.
    """
    itemsize = FEATURE_DTYPES[config.feature_dtype].itemsize
    size = len(images) * feature_width(backbone, config) * itemsize
    if home_of(size, device_of(backbone)).type == "cpu":
        _require(size * min(2, share.count), len(images), _FEWER, share)


def _require(num_bytes: int, num_images: int, advice: str, share: Share) -> None:
    # No process may fill its memory before all have looked at theirs.
    with failing_together() if share.count > 1 else nullcontext():
        require_memory(num_bytes, f"the features of {num_images:,} images", advice)
