"""Test the comparison of tensors with the expected ones."""

import pytest
import torch

from rsa_pretrain.weights.tensor_check import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_largest_numbers_are_finite_though_their_sum_is_not(dtype):
    """Whatever the sum overflows to."""
    most = torch.finfo(dtype).max
    assert all_finite(torch.full((100,), most, dtype=dtype))
    assert all_finite(torch.tensor([most, most, -most, -most], dtype=dtype))


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_one_broken_number_is_found(broken):
    """Also beside its opposite, and in a tensor of no dimension."""
    assert not all_finite(torch.tensor([1.0, broken, 2.0]))
    assert not all_finite(torch.tensor([broken, -broken]))
    assert not all_finite(torch.tensor(broken))


def test_counts_and_nothing_are_finite():
    """Integers, booleans, and tensors without elements."""
    for tensor in (torch.tensor(3), torch.tensor([True]), torch.zeros(0), torch.zeros(2, 0)):
        assert all_finite(tensor)
