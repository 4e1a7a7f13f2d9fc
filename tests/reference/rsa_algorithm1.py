"""RSA's Algorithm 1 written out in float64: plain loops, no code of the package.

Symbols are the paper's: f backbone, g projector, q predictor, theta online, xi target.
"""

import copy
import math

import torch


def mse(z, z_prime):
    """Eq. 2 for one batch: the mean over rows of 2 - 2 <z, z'> / (||z|| ||z'||)."""
    total = 0.0
    for row, row_prime in zip(z, z_prime, strict=True):
        dot = sum(a * b for a, b in zip(row, row_prime, strict=True))
        norm = math.sqrt(sum(float(a) ** 2 for a in row))
        norm_prime = math.sqrt(sum(float(b) ** 2 for b in row_prime))
        total += 2 - 2 * float(dot) / (norm * norm_prime)
    return total / len(z)


def loss(z_a, z_a_prime, z_w, z_w_prime, beta):
    """Eq. 5, from values alone."""
    return (
        (1 - beta) * mse(z_a, z_w_prime)
        + beta * mse(z_a, z_a_prime)
        + (1 - beta) * mse(z_a_prime, z_w)
        + beta * mse(z_a_prime, z_a)
    )


def beta(beta_base, k, num_steps):
    """Eq. 6."""
    return beta_base * 0.5 * (math.cos(math.pi * k / num_steps) + 1)


def differentiable_mse(z, z_prime):
    """Eq. 2 with autograd; the second argument is a constant (stop-gradient)."""
    z_prime = z_prime.detach()
    cosines = (z * z_prime).sum(1) / (z.pow(2).sum(1).sqrt() * z_prime.pow(2).sum(1).sqrt())
    return (2 - 2 * cosines).mean()


def train(f, g, q, batches, *, beta_base, tau_base, lr, momentum, weight_decay):
    """Run Algorithm 1 with plain SGD and return the losses and the final networks.

    Args:
        f: Backbone, float64; changed in place, as g and q are.
        g: Projector.
        q: Predictor.
        batches: One [v_a, v_a', v_w, v_w'] per step.
        beta_base: Initial beta.
        tau_base: Initial momentum of the target.
        lr: Learning rate per step.
        momentum: SGD momentum.
        weight_decay: L2 penalty.
    """
    f_xi, g_xi = copy.deepcopy(f), copy.deepcopy(g)
    theta = [p for network in (f, g, q) for p in network.parameters()]
    velocity = [torch.zeros_like(p) for p in theta]
    losses = []
    for k, (v_a, v_a_prime, v_w, v_w_prime) in enumerate(batches):
        z_a, z_a_prime = q(g(f(v_a))), q(g(f(v_a_prime)))
        z_w, z_w_prime = g_xi(f_xi(v_w)), g_xi(f_xi(v_w_prime))
        b = beta(beta_base, k, len(batches))
        total = (
            (1 - b) * differentiable_mse(z_a, z_w_prime)
            + b * differentiable_mse(z_a, z_a_prime)
            + (1 - b) * differentiable_mse(z_a_prime, z_w)
            + b * differentiable_mse(z_a_prime, z_a)
        )
        losses.append(total.item())
        gradients = torch.autograd.grad(total, theta)
        tau = 1 - (1 - tau_base) * (math.cos(math.pi * k / len(batches)) + 1) / 2
        with torch.no_grad():
            for p, v, gradient in zip(theta, velocity, gradients, strict=True):
                v.mul_(momentum).add_(gradient + weight_decay * p)
                p.sub_(lr[k] * v)
            for target, online in ((f_xi, f), (g_xi, g)):
                for xi, p in zip(target.parameters(), online.parameters(), strict=True):
                    xi.copy_(tau * xi + (1 - tau) * p)
    return losses, f_xi, g_xi
