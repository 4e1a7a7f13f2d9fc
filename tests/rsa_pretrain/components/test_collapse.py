import logging

import pytest
import torch

from rsa_pretrain.components.collapse import CollapseMonitor, projection_std


def test_spread_vectors_score_one_and_equal_ones_zero():
    """SimSiam's measure times sqrt(D); the norms do not count."""
    spread = torch.randn(4000, 64) * torch.rand(4000, 1)
    assert projection_std(spread).item() == pytest.approx(1.0, abs=0.01)
    assert projection_std(torch.ones(8, 64)).item() == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_comes_from_watching():
    """The monitor must not train."""
    projections = torch.randn(4, 3, requires_grad=True)
    assert not projection_std(projections).requires_grad


def test_collapse_is_told_once_until_it_has_passed(caplog):
    """Two falls to zero give two warnings, however long each lasts."""
    monitor = CollapseMonitor()
    with caplog.at_level(logging.WARNING):
        for step, spread in enumerate((0.9, 0.01, 0.0, 0.005, 0.5, 0.01)):
            monitor.check(step, spread)
    assert [record.args[0] for record in caplog.records] == [1, 5]
    assert "collapse" in caplog.text
