"""BYOL (Grill et al. 2020) written out in float64: no code of the package.

Symbols are the paper's: f backbone, g projector, q predictor, theta online, xi target.
"""

import math

import torch
from layers import is_parameter, mlp, resnet


def unit(z):
    """Rows divided by their norm."""
    return z / z.pow(2).sum(1, keepdim=True).sqrt()


def train(w, batches, *, base_lr, weight_decay):
    """Run Algorithm 1, with RSA's SGD (its Section 4.1: momentum 0.9, cosine-annealed rate).

    The first step trains at the initial rate and moves the target at the initial tau.

    Args:
        w: Initial f, g and q, by name; it becomes the final theta and xi.
        batches: One [v, v'] per step.
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
    history = []
    for k, (v, v_prime) in enumerate(batches):
        half_cosine = (math.cos(math.pi * k / len(batches)) + 1) / 2
        tau = 1 - (1 - 0.99) * half_cosine  # Section 3.3; tau_base as in RSA's Section 4.1
        lr = base_lr * len(v) / 256 * half_cosine  # Loshchilov and Hutter 2017, Eq. 5
        for name in theta:
            w[name].requires_grad_()
        q, q_prime = (
            mlp(w, "predictor", mlp(w, "projector", resnet(w, "backbone", view)))
            for view in (v, v_prime)
        )
        with torch.no_grad():
            z, z_prime = (
                mlp(w, "target_projector", resnet(w, "target_backbone", view))
                for view in (v, v_prime)
            )
        loss = (unit(q) - unit(z_prime)).pow(2).sum(1).mean()  # Eq. 2
        loss = loss + (unit(q_prime) - unit(z)).pow(2).sum(1).mean()  # its views exchanged
        history.append({"loss": loss.item(), "ema_momentum": tau, "lr": lr})
        gradients = torch.autograd.grad(loss, [w[name] for name in theta])
        for name, gradient in zip(theta, gradients, strict=True):
            w[name] = w[name].detach()
            velocity[name] = 0.9 * velocity[name] + gradient + weight_decay * w[name]
            w[name] = w[name] - lr * velocity[name]
            if not name.startswith("predictor."):  # Eq. 1
                w[f"target_{name}"] = tau * w[f"target_{name}"] + (1 - tau) * w[name]
    return history
