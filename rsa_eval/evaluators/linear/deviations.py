"""List a linear probe's departures from its published protocol."""

from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, LinearConfig, LinearOptions
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
    deviations = common_deviations(config, DINOV2 if config.protocol == "dinov2" else USUAL)
    if config.stl10_folds:
        deviations.append("mean over ten folds of the training images (protocol: all at once)")
    return deviations + probe_deviations(config, num_steps)


def probe_deviations(options: LinearOptions, num_steps: int) -> list[str]:
    """List the departures of a probe's training.

    Args:
        options: The protocol and the probe.
        num_steps: Number of optimizer steps.
    """
    deviations = settings_deviations(options.probe, LINEAR_PROTOCOLS[options.protocol])
    if options.protocol == "dinov2":
        deviations += _dinov2_probe_deviations(options, num_steps)
    return deviations


def _dinov2_probe_deviations(options: LinearOptions, num_steps: int) -> list[str]:
    """List the probe's differences from dinov2/eval/linear.py that no setting removes."""
    num_heads = len(options.probe.base_lr)
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
