"""The memory of a fit beside its features."""

from typing import Any

import pytest
import torch

from rsa_eval.evaluators.logistic import minimise
from rsa_eval.evaluators.logistic.fit import Fitter
from rsa_eval.features.labelled import LabelledFeatures

# M_MMAP_THRESHOLD = -3: a tensor's memory returns when it is freed; else the peak depends on how
# the C library's heap happens to lie.
_PEAK = """
import ctypes, resource, torch
from rsa_eval.evaluators.logistic import objective
from rsa_eval.evaluators.logistic.fit import Fitter
from rsa_eval.features.labelled import LabelledFeatures

ctypes.CDLL(None).mallopt(-3, 2**16)
torch.set_num_threads(1)
objective._BLOCK_VALUES = 2**20
def draw(count):
    rows = torch.empty(count, 128, dtype=torch.float16).normal_()
    return LabelledFeatures(rows, torch.arange(count) % 20)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
def fit(train):
    return Fitter(train, max_iterations=8, tolerance=1e-15).fit(1.0).iterations
many = draw(200_000)
fit(draw(10_000))
before = peak()
steps = fit(many)
print(before, peak(), steps)
"""


def test_memory_does_not_grow_with_the_images(python: Any) -> None:
    """Of 20 times as many, whose float32 features are 98 MiB, the labels alone take more."""
    done = python.run("-c", _PEAK)
    done.check_returncode()
    before, after, steps = map(int, done.stdout.split())
    assert steps == 8
    assert after - before < 32


def test_fewer_stored_steps_end_at_the_same_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many classes of wide features store 10 steps at least."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 10
    centres = torch.randn(10, 30, generator=generator)
    features = 0.4 * centres[labels] + torch.randn(400, 30, generator=generator)
    train = LabelledFeatures(features, labels)
    fits = []
    for values in (2**26, 1):
        monkeypatch.setattr(minimise, "_STORED_VALUES", values)
        fits.append(Fitter(train, max_iterations=1000, tolerance=1e-9).fit(100.0))
    assert all(fit.converged for fit in fits)
    assert fits[0].iterations > 10
    # A constant added to all intercepts changes nothing; without it coefficients are known to the
    # square root of the objective's tolerance.
    first, second = (fit.coefficients - fit.coefficients.mean(dim=1, keepdim=True) for fit in fits)
    assert float((first - second).norm() / first.norm()) < 1e-9**0.5
