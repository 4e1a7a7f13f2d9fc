"""List a run's departures from its published evaluation protocol."""

from dataclasses import dataclass
from typing import Any

from rsa_eval.config import EvaluationConfig
from rsa_pretrain.data.settings import Interpolation
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.plumbing.device_names import Precision


@dataclass(frozen=True)
class Extraction:
    """A protocol's feature extraction."""

    interpolation: Interpolation | None = "bilinear"
    """None if nothing is published."""
    precision: Precision = "fp32"


USUAL = Extraction()
# dinov2/data/transforms.py, for evaluated images and training crops alike; dinov2/eval/setup.py
# takes the precision of the teacher.
DINOV2 = Extraction("bicubic", "fp16")
KORNBLITH = Extraction("bicubic")


def common_deviations(config: EvaluationConfig, published: Extraction = USUAL) -> list[str]:
    """List the departures in images and precision.

    Args:
        config: The run's settings.
        published: The protocol's feature extraction.
    """
    deviations = []
    if config.data.num_train_images is not None:
        deviations.append(f"{config.data.num_train_images} training images (protocol: all)")
    if config.data.stl10_fold is not None:
        deviations.append(f"fold {config.data.stl10_fold} of the training images (protocol: all)")
    if config.data.num_test_images is not None:
        deviations.append(f"{config.data.num_test_images} test images (protocol: all)")
    if published.interpolation not in (None, config.data.eval_interpolation):
        deviations.append(
            f"{config.data.eval_interpolation} resizing (protocol: {published.interpolation})"
        )
    if config.precision != published.precision:
        deviations.append(f"precision {config.precision} (protocol: {published.precision})")
    if config.layers != ("layer4",):
        deviations.append(f"features of {' and '.join(config.layers)} (protocol: layer4)")
    if config.tokens != "default":
        of_blocks = f" of the last {config.blocks} blocks" if config.blocks > 1 else ""
        deviations.append(f"features of tokens {config.tokens}{of_blocks} (protocol: pooled)")
    if config.feature_dtype != "fp32":
        deviations.append(f"features kept in {config.feature_dtype} (protocol: fp32)")
    return deviations


def settings_deviations(found: Section, published: Section) -> list[str]:
    """List the settings of a section that differ from the published ones."""
    pairs = {
        key: (getattr(found, key), getattr(published, key)) for key in type(found).model_fields
    }
    return [
        f"{key} {setting_text(own)} (protocol: {setting_text(expected)})"
        for key, (own, expected) in pairs.items()
        if own != expected
    ]


def setting_text(value: Any, joint: str = " and ") -> str:
    """Return a setting's value as text, its parts connected by ``joint``."""
    if value is None:
        return "not set"
    if isinstance(value, list | tuple):
        return joint.join(setting_text(entry) for entry in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
