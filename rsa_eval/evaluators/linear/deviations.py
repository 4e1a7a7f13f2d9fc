"""List a linear probe's departures from its published protocol."""

from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, LinearConfig
from rsa_eval.evaluators.shared.deviations import (
    DINOV2,
    USUAL,
    common_deviations,
    settings_deviations,
)

_DINOV2_STEPS = 12_500


def linear_deviations(config: LinearConfig, num_steps: int) -> list[str]:
    """List the departures of a linear probe.

    Args:
        config: The run's settings.
        num_steps: Number of optimizer steps.
    """
    is_dinov2 = config.protocol == "dinov2"
    deviations = common_deviations(config, DINOV2 if is_dinov2 else USUAL)
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
