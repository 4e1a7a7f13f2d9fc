"""RSA (Bai et al. 2022) written out in float64: no code of the package.

Symbols are the paper's: f backbone, g projector, q predictor, theta online, xi target.
"""

import math

import torch
from layers import is_parameter, mlp, resnet


def mse(z, z_prime):
    """Eq. 2 of rows of numbers: the mean over rows of 2 - 2 <z, z'> / (||z|| ||z'||)."""
    total = 0.0
    for row, row_prime in zip(z, z_prime, strict=True):
        dot = sum(a * b for a, b in zip(row, row_prime, strict=True))
        norm = math.sqrt(sum(a**2 for a in row))
        norm_prime = math.sqrt(sum(b**2 for b in row_prime))
        total += 2 - 2 * dot / (norm * norm_prime)
    return total / len(z)


def loss(z_a, z_a_prime, z_w, z_w_prime, beta):
    """Eq. 5, from values alone."""
    return (
        (1 - beta) * mse(z_a, z_w_prime)
        + beta * mse(z_a, z_a_prime)
        + (1 - beta) * mse(z_a_prime, z_w)
        + beta * mse(z_a_prime, z_a)
    )


def differentiable_mse(z, z_prime):
    """Eq. 2 with autograd; the second argument is a constant (Section 3.2's stop-gradient)."""
    z_prime = z_prime.detach()
    dots = (z * z_prime).sum(1)
    return (2 - 2 * dots / (z.pow(2).sum(1).sqrt() * z_prime.pow(2).sum(1).sqrt())).mean()


def train(w, batches, *, beta_base, beta_decays, base_lr, weight_decay):
    """Run Algorithm 1 with SGD (Section 4.1: momentum 0.9, cosine-annealed rate).

    The views of Eq. 3 are given. Eq. 4 prints f_xi(v_w) for z_w' too; Algorithm 1 and Figure 2
    mean v_w'. Beta of step k is used before it is decayed, as Algorithm 1 has it, so step 1
    trains at beta_base; likewise the rate and tau start at theirs.

    Args:
        w: Initial f, g and q, by name; it becomes the final theta and xi.
        batches: One [v_a, v_a', v_w, v_w'] per step.
        beta_base: Initial beta.
        beta_decays: By Eq. 6, or not at all (Table 1, "Fixed").
        base_lr: Initial rate for a batch of 256, scaled linearly (Goyal et al. 2017).
        weight_decay: L2 penalty on every parameter.

    Returns:
        Per step the loss and what is scheduled.
    """
    theta = [name for name in w if is_parameter(name)]
    for name in list(w):
        if not name.startswith("predictor."):
            w[f"target_{name}"] = w[name]
    velocity = dict.fromkeys(theta, 0.0)
    num_steps = len(batches)
    beta, tau, lr = beta_base, 0.99, base_lr * len(batches[0][0]) / 256
    history = []
    for k, (v_a, v_a_prime, v_w, v_w_prime) in enumerate(batches, start=1):
        for name in theta:
            w[name].requires_grad_()
        z_a, z_a_prime = (
            mlp(w, "predictor", mlp(w, "projector", resnet(w, "backbone", v)))
            for v in (v_a, v_a_prime)
        )
        with torch.no_grad():
            z_w, z_w_prime = (
                mlp(w, "target_projector", resnet(w, "target_backbone", v))
                for v in (v_w, v_w_prime)
            )
        total = (
            (1 - beta) * differentiable_mse(z_a, z_w_prime)
            + beta * differentiable_mse(z_a, z_a_prime)
            + (1 - beta) * differentiable_mse(z_a_prime, z_w)
            + beta * differentiable_mse(z_a_prime, z_a)
        )
        history.append({"loss": total.item(), "beta": beta, "ema_momentum": tau, "lr": lr})
        gradients = torch.autograd.grad(total, [w[name] for name in theta])
        for name, gradient in zip(theta, gradients, strict=True):
            w[name] = w[name].detach()
            velocity[name] = 0.9 * velocity[name] + gradient + weight_decay * w[name]
            w[name] = w[name] - lr * velocity[name]
            if not name.startswith("predictor."):  # BYOL Eq. 1
                w[f"target_{name}"] = tau * w[f"target_{name}"] + (1 - tau) * w[name]
        half_cosine = (math.cos(math.pi * k / num_steps) + 1) / 2
        if beta_decays:
            beta = beta_base * half_cosine  # Eq. 6
        tau = 1 - (1 - 0.99) * half_cosine  # BYOL, Section 3.3
        lr = base_lr * len(v_a) / 256 * half_cosine  # Loshchilov and Hutter 2017, Eq. 5
    return history
