"""Probes that did not converge say so."""

import math

import pytest
import torch

from rsa_eval import LabelledFeatures, ProbeConfig, linear_probe
from rsa_eval.evaluators.linear.convergence import probe_warnings

SHORT = {"mode": "cached", "epochs": 10, "milestones": (6, 8), "batch_size": 16}


def blobs(scale: float) -> LabelledFeatures:
    """Six overlapping classes, far from the origin as ReLU's averages are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 6
    centres = torch.randn(6, 8, generator=generator)
    noise = torch.randn(120, 8, generator=generator)
    return LabelledFeatures(scale * (centres[labels] + 2 * noise).relu(), labels)


def test_features_too_large_for_the_rate_are_noticed() -> None:
    """The same features pass at a scale that the rate suits, and the accuracy is better there."""
    large, small = (
        linear_probe(blobs(scale), blobs(scale), ProbeConfig(**SHORT)) for scale in (100.0, 0.3)
    )
    (warning,) = large.details["warnings"]
    assert warning.startswith("the probe did not converge: its last training loss exceeds ln 6")
    assert "probe.base_lr 30 is too high" in warning
    assert large.details["loss_by_epoch"][-1] > math.log(6) > small.details["loss_by_epoch"][-1]
    assert "warnings" not in small.details
    assert small.value > large.value


@pytest.mark.parametrize(
    ("chosen", "rates", "end"),
    [(0, (1.0, 2.0, 3.0), "lowest"), (1, (1.0, 3.0, 2.0), "highest"), (1, (1.0, 2.0, 3.0), None)],
)
def test_the_best_of_several_rates_at_an_end_is_noticed(
    chosen: int, rates: tuple[float, ...], end: str | None
) -> None:
    """Whatever their order; in between there is nothing to say."""
    found = probe_warnings(0.5, 10, chosen, rates)
    assert found == (
        []
        if end is None
        else [
            f"the best probe.base_lr of 3, {rates[chosen]:g}, is the {end} tried; "
            "another may be better"
        ]
    )


@pytest.mark.parametrize("loss", [math.inf, math.nan, 2.4])
def test_a_loss_above_guessing_or_none_at_all_is_noticed(loss: float) -> None:
    """Guessing among ten classes has ln 10 = 2.303."""
    assert len(probe_warnings(loss, 10, 0, (30.0,))) == 1
    assert probe_warnings(2.3, 10, 0, (30.0,)) == []
