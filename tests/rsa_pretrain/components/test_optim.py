import copy

import pytest
import rival_methods
import torch
from torch import nn

from rsa_pretrain.components.optim import LARS, build_optimizer, scaled_lr
from rsa_pretrain.components.settings import OptimizerConfig


def test_lars_equals_the_per_tensor_oracle():
    """Five steps of matrices, a kernel, a bias, a scalar and zeros equal float64 loops."""
    shapes = [(4, 3), (2, 3, 3, 3), (5,), (), (3, 3)]
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    tensors[-1].zero_()
    gradients = [[torch.randn_like(tensor) for tensor in tensors] for _ in range(5)]
    rates = [0.1, 0.5, 3.0, 2.0, 0.01]
    parameters = [nn.Parameter(tensor.clone()) for tensor in tensors]
    optimizer = LARS(parameters, momentum=0.9, weight_decay=0.01, trust_coefficient=0.02)
    for step, rate in enumerate(rates):
        for parameter, gradient in zip(parameters, gradients[step], strict=True):
            parameter.grad = gradient.clone()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for index, parameter in enumerate(parameters):
        expected = rival_methods.lars(
            tensors[index], [step[index] for step in gradients], rates, 0.9, 0.01, 0.02
        )
        torch.testing.assert_close(parameter.data, expected, rtol=1e-10, atol=1e-12)


def test_lars_leaves_gradients_alone():
    """Accumulated or logged gradients must not change by the step."""
    parameter = nn.Parameter(torch.randn(3, 3))
    parameter.grad = torch.randn(3, 3)
    before = parameter.grad.clone()
    LARS([parameter], 0.9, 0.1, 0.001, lr=1.0).step()
    assert torch.equal(parameter.grad, before)


def test_lars_with_a_zero_gradient_does_not_divide_by_it():
    """No weight decay and no gradient: the tensor stays, finite."""
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.zeros(2, 2)
    LARS([parameter], 0.9, 0.0, 0.001, lr=1.0).step()
    assert torch.equal(parameter.data, torch.ones(2, 2))


def test_lars_state_survives_a_round_trip():
    """A restored optimizer takes the same next step."""
    start, gradient = torch.randn(3, 2), torch.randn(3, 2)

    def fresh():
        parameter = nn.Parameter(start.clone())
        parameter.grad = gradient.clone()
        return parameter, LARS([parameter], 0.9, 0.1, 0.001, lr=1.0)

    parameter, optimizer = fresh()
    optimizer.step()
    restored, other = fresh()
    restored.data.copy_(parameter.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()
    other.step()
    assert torch.equal(parameter.data, restored.data)


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_frozen_parameters_are_left_out(name):
    """Momentum networks are moved by their average alone."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    config = OptimizerConfig(name=name, base_lr=0.1, weight_decay=0.1)
    groups = build_optimizer(model, config).param_groups
    assert {p for group in groups for p in group["params"]} == set(model[0].parameters())


def test_sgd_decays_norms_and_biases_too_and_lars_does_not():
    """As RECIPES of the paper's release: SGD decays everything, LARS only tensors of 2+ axes."""
    for name, moved in (("sgd", True), ("lars", False)):
        norm = nn.BatchNorm1d(3)
        nn.init.ones_(norm.bias)
        config = OptimizerConfig(name=name, base_lr=0.1, weight_decay=0.5)
        optimizer = build_optimizer(norm, config)
        for parameter in norm.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        optimizer.step()
        assert torch.equal(norm.bias.data, torch.ones(3)) != moved


def test_rate_scales_in_floating_point():
    """Below 256 images integer division would give 0."""
    assert scaled_lr(0.9, 2048) == pytest.approx(7.2)
    assert scaled_lr(0.1, 64) == pytest.approx(0.025)


def test_a_first_step_that_the_scaler_skips_leaves_no_trace():
    """Found infinity in the first step: weights and momentum are as if it had not been."""
    parameters = [nn.Parameter(torch.ones(1000)) for _ in range(2)]
    config = OptimizerConfig(base_lr=0.1, weight_decay=0.0)
    optimizers = [build_optimizer(nn.ParameterList([p]), config) for p in parameters]
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.1
    parameters[0].grad = torch.full((1000,), float("inf"))
    optimizers[0].found_inf, optimizers[0].grad_scale = torch.ones(()), torch.ones(())
    optimizers[0].step()
    optimizers[0].found_inf = torch.zeros(())
    for parameter, optimizer in zip(parameters, optimizers, strict=True):
        parameter.grad = torch.linspace(-1, 1, 1000)
        optimizer.step()
    assert torch.equal(parameters[0].data, parameters[1].data)
