"""The evaluation protocols as published, and how a run departs from them."""

from typing import Any

from rsa_eval.config import EvaluationConfig
from rsa_eval.knn_config import PAPER_VOTE, KNNConfig
from rsa_eval.linear_config import LINEAR_PROTOCOLS, LinearConfig
from rsa_pretrain.config_files import Section


def knn_deviations(config: KNNConfig, bank_size: int) -> list[str]:
    """List the departures of a kNN evaluation's headline, in words.

    Args:
        config: The run's settings.
        bank_size: Training images that vote on an image.
    """
    deviations = common_deviations(config)
    headline = config.settings[0]
    if headline != PAPER_VOTE:
        deviations.append(f"{headline.label} (protocol: {PAPER_VOTE.label})")
    if config.leave_one_out:
        deviations.append("each training image classified by the others (protocol: test images)")
    if headline.k > bank_size:
        deviations.append(f"all {bank_size} training images vote (k={headline.k})")
    return deviations


def linear_deviations(config: LinearConfig) -> list[str]:
    """List the departures of a linear probe, in words."""
    deviations = common_deviations(config)
    if config.stl10_folds:
        deviations.append("mean over ten folds of the training images (protocol: all at once)")
    return deviations + settings_deviations(config.probe, LINEAR_PROTOCOLS[config.protocol])


def common_deviations(config: EvaluationConfig) -> list[str]:
    """List the departures in images and precision, in words."""
    deviations = []
    if config.data.num_train_images is not None:
        deviations.append(f"{config.data.num_train_images} training images (protocol: all)")
    if config.data.stl10_fold is not None:
        deviations.append(f"fold {config.data.stl10_fold} of the training images (protocol: all)")
    if config.data.num_test_images is not None:
        deviations.append(f"{config.data.num_test_images} test images (protocol: all)")
    if config.precision != "fp32":
        deviations.append(f"precision {config.precision} (protocol: fp32)")
    if config.layers != ("layer4",):
        deviations.append(f"features of {' and '.join(config.layers)} (protocol: layer4)")
    if config.feature_dtype != "fp32":
        deviations.append(f"features kept in {config.feature_dtype} (protocol: fp32)")
    return deviations


def settings_deviations(found: Section, published: Section) -> list[str]:
    """List the settings of a section that differ from the published ones, in words."""
    pairs = {
        key: (getattr(found, key), getattr(published, key)) for key in type(found).model_fields
    }
    return [
        f"{key} {_words(own)} (protocol: {_words(expected)})"
        for key, (own, expected) in pairs.items()
        if own != expected
    ]


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return " and ".join(_words(entry) for entry in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
