"""List a run's departures from its published evaluation protocol."""

from dataclasses import dataclass
from typing import Any

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.finetune.settings import FINETUNE_PROTOCOLS, FinetuneConfig
from rsa_eval.evaluators.knn.settings import PAPER_VOTE, KNNConfig
from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, LinearConfig
from rsa_eval.evaluators.logistic.settings import LogisticConfig, SearchConfig
from rsa_pretrain.data.settings import Interpolation
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.plumbing.device_names import Precision


@dataclass(frozen=True)
class Extraction:
    """A protocol's feature extraction."""

    interpolation: Interpolation = "bilinear"
    precision: Precision = "fp32"


_USUAL = Extraction()
# dinov2/data/transforms.py, for evaluated images and training crops alike; dinov2/eval/setup.py
# takes the precision of the teacher.
_DINOV2 = Extraction("bicubic", "fp16")
_DINOV2_STEPS = 12_500
_DINOV2_RESIZE = 224
"""Short side in dinov2/eval/log_regression.py; its linear probe has the usual 256."""


def knn_deviations(config: KNNConfig, bank_size: int) -> list[str]:
    """List the departures of a kNN evaluation's headline.

    Args:
        config: The run's settings.
        bank_size: Number of training images that vote on an image.
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


def linear_deviations(config: LinearConfig, num_steps: int) -> list[str]:
    """List the departures of a linear probe.

    Args:
        config: The run's settings.
        num_steps: Number of optimizer steps.
    """
    is_dinov2 = config.protocol == "dinov2"
    deviations = common_deviations(config, _DINOV2 if is_dinov2 else _USUAL)
    if config.stl10_folds:
        deviations.append("mean over ten folds of the training images (protocol: all at once)")
    deviations += settings_deviations(config.probe, LINEAR_PROTOCOLS[config.protocol])
    return deviations + _dinov2_probe_deviations(config, num_steps) if is_dinov2 else deviations


def _dinov2_probe_deviations(config: LinearConfig, num_steps: int) -> list[str]:
    """List the probe's differences from dinov2/eval/linear.py that no setting removes."""
    num_heads = len(config.probe.base_lr)
    deviations = [
        f"heads {num_heads}, on one feature vector (protocol: 52, 13 each on the last block and on "
        "the last four, with and without the averaged patches)"
    ]
    if num_heads > 1:
        deviations += [
            "all heads start from the same weights (protocol: each from its own)",
            "head chosen on held-out training images (protocol: on the test images)",
        ]
    if num_steps != _DINOV2_STEPS:
        deviations.append(f"steps {num_steps} (protocol: {_DINOV2_STEPS})")
    return deviations


def logistic_deviations(config: LogisticConfig) -> list[str]:
    """List the departures of a logistic regression."""
    deviations = common_deviations(config, _DINOV2)
    if config.data.eval_resize not in (None, _DINOV2_RESIZE):
        deviations.append(
            f"short side resized to {config.data.eval_resize} (protocol: {_DINOV2_RESIZE})"
        )
    return [
        *deviations,
        *settings_deviations(config.search, SearchConfig()),
        f"scikit-learn's L-BFGS, tolerance {config.search.tolerance:g} (protocol: cuML's, 1e-12)",
        "held out by class (protocol: of all images alike)",
    ]


def finetune_deviations(config: FinetuneConfig) -> list[str]:
    """List the departures of fine-tuning, except those due to several processes."""
    published = FINETUNE_PROTOCOLS[config.protocol]
    deviations = [
        *common_deviations(config),
        *settings_deviations(config.tuning, published.tuning),
    ]
    if config.subset is None:
        deviations.append(f"all labels (protocol: {published.subset.name})")
    elif config.subset.is_drawn:
        if config.subset != published.subset:
            deviations.append(f"labels {config.subset.name} (protocol: {published.subset.name})")
        if config.data.name == "imagenet":
            deviations.append("labels drawn at random (protocol: those of SimCLR's lists)")
    return deviations


def common_deviations(config: EvaluationConfig, published: Extraction = _USUAL) -> list[str]:
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
    if config.data.eval_interpolation != published.interpolation:
        deviations.append(
            f"{config.data.eval_interpolation} resizing (protocol: {published.interpolation})"
        )
    if config.precision != published.precision:
        deviations.append(f"precision {config.precision} (protocol: {published.precision})")
    if config.layers != ("layer4",):
        deviations.append(f"features of {' and '.join(config.layers)} (protocol: layer4)")
    if config.feature_dtype != "fp32":
        deviations.append(f"features kept in {config.feature_dtype} (protocol: fp32)")
    return deviations


def settings_deviations(found: Section, published: Section) -> list[str]:
    """List the settings of a section that differ from the published ones."""
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
