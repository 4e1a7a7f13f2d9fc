import itertools
import math

import pytest
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
)

from rsa_pretrain.components.optim import scaled_lr
from rsa_pretrain.components.schedules import cosine, warmup_cosine


def test_beta_by_hand():
    """Eq. 6 at its start, thirds, half and end."""
    assert cosine(0.3, 0.0, 0.0) == 0.3
    assert cosine(0.3, 0.0, 1 / 3) == pytest.approx(0.3 * 0.75)
    assert cosine(0.3, 0.0, 0.5) == pytest.approx(0.15)
    assert cosine(0.3, 0.0, 2 / 3) == pytest.approx(0.3 * 0.25)
    assert cosine(0.3, 0.0, 1.0) == pytest.approx(0.0, abs=1e-17)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_ema_momentum_is_byols(progress):
    """It is tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2, from 0.99 to 1."""
    expected = 1 - 0.01 * (math.cos(math.pi * progress) + 1) / 2
    assert cosine(0.99, 1.0, progress) == pytest.approx(expected, rel=1e-12)


def test_learning_rate_ramps_then_falls():
    """A tenth of warm-up: linear from 0, the peak at its end, half the peak in the middle."""
    rates = [warmup_cosine(2.0, 0.1, step / 100) for step in range(100)]
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 89 / 90), rel=1e-6)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(("epochs", "warmup_epochs"), [(3, 1), (7, 2), (90, 5), (200, 10)])
def test_learning_rate_is_fvcores(epochs, warmup_epochs):
    """Bit for bit, at every step: detectron2 and many published runs are scheduled by it."""
    warmup, steps = warmup_epochs / epochs, 11 * epochs
    theirs = CompositeParamScheduler(
        [LinearParamScheduler(0.0, 4.8), CosineParamScheduler(4.8, 0.0)],
        lengths=[warmup, 1 - warmup],
        interval_scaling=["rescaled", "rescaled"],
    )
    for step in range(steps):
        assert warmup_cosine(4.8, warmup, step / steps) == theirs(step / steps)
    fall = CosineParamScheduler(0.99, 1.0)
    assert all(cosine(0.99, 1.0, step / steps) == fall(step / steps) for step in range(steps))


def test_learning_rate_without_warmup_starts_at_the_peak():
    """The first step trains at the full rate."""
    assert warmup_cosine(0.1, 0.0, 0.0) == 0.1


def test_learning_rate_scales_in_floating_point():
    """Half the reference batch is half the rate, not zero."""
    assert scaled_lr(0.9, 128) == pytest.approx(0.45)
    assert scaled_lr(0.9, 2048) == pytest.approx(7.2)
