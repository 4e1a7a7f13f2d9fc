"""SimSiam (Chen and He 2021), alone and with RSA, written out in float64: no code of the package.

Symbols are SimSiam's: f backbone and projector, h predictor, D negative cosine.
"""

import math

import torch
from layers import is_parameter, mlp, resnet, simsiam_projector


def d(p, z):
    """Eq. 1, averaged over the batch; the second argument is a constant (Eq. 3)."""
    z = z.detach()
    return -((p * z).sum(1) / (p.pow(2).sum(1).sqrt() * z.pow(2).sum(1).sqrt())).mean()


def train(w, batches, *, base_lr, weight_decay):
    """Run Algorithm 1 with SGD (RSA, Section 4.1: momentum 0.9, cosine-annealed rate).

    Args:
        w: Initial f and h, by name; it becomes the final ones.
        batches: One [v, v'] per step.
        base_lr: Initial rate for a batch of 256, scaled linearly (Section 3).
        weight_decay: L2 penalty on every parameter.

    Returns:
        Per step the loss and the rate.
    """
    theta = [name for name in w if is_parameter(name)]
    velocity = dict.fromkeys(theta, 0.0)
    history = []
    for k, (v, v_prime) in enumerate(batches):
        lr = base_lr * len(v) / 256 * (math.cos(math.pi * k / len(batches)) + 1) / 2
        for name in theta:
            w[name].requires_grad_()
        z, z_prime = (
            simsiam_projector(w, "projector", resnet(w, "backbone", view)) for view in (v, v_prime)
        )
        p, p_prime = mlp(w, "predictor", z), mlp(w, "predictor", z_prime)
        loss = d(p, z_prime) / 2 + d(p_prime, z) / 2  # Eq. 4
        history.append({"loss": loss.item(), "lr": lr})
        gradients = torch.autograd.grad(loss, [w[name] for name in theta])
        for name, gradient in zip(theta, gradients, strict=True):
            w[name] = w[name].detach()
            velocity[name] = 0.9 * velocity[name] + gradient + weight_decay * w[name]
            w[name] = w[name] - lr * velocity[name]
    return history


def train_with_rsa(w, batches, *, beta_base, base_lr, weight_decay):
    """Run RSA's Algorithm 1 over SimSiam (RSA, Section 4.7): D for L_mse, no momentum network.

    The weak views' embeddings are f's, without gradient.

    Args:
        w: Initial f and h, by name; it becomes the final ones.
        batches: One [v_a, v_a', v_w, v_w'] per step.
        beta_base: Initial beta.
        base_lr: Initial rate for a batch of 256, scaled linearly.
        weight_decay: L2 penalty on every parameter.

    Returns:
        Per step the loss and what is scheduled.
    """
    theta = [name for name in w if is_parameter(name)]
    velocity = dict.fromkeys(theta, 0.0)
    history = []
    for k, (v_a, v_a_prime, v_w, v_w_prime) in enumerate(batches):
        half_cosine = (math.cos(math.pi * k / len(batches)) + 1) / 2
        beta = beta_base * half_cosine  # RSA Eq. 6
        lr = base_lr * len(v_a) / 256 * half_cosine
        for name in theta:
            w[name].requires_grad_()
        z_a, z_a_prime = (
            mlp(w, "predictor", simsiam_projector(w, "projector", resnet(w, "backbone", v)))
            for v in (v_a, v_a_prime)
        )
        with torch.no_grad():
            z_w, z_w_prime = (
                simsiam_projector(w, "projector", resnet(w, "backbone", v))
                for v in (v_w, v_w_prime)
            )
        loss = (  # RSA Eq. 5
            (1 - beta) * d(z_a, z_w_prime)
            + beta * d(z_a, z_a_prime)
            + (1 - beta) * d(z_a_prime, z_w)
            + beta * d(z_a_prime, z_a)
        )
        history.append({"loss": loss.item(), "beta": beta, "lr": lr})
        gradients = torch.autograd.grad(loss, [w[name] for name in theta])
        for name, gradient in zip(theta, gradients, strict=True):
            w[name] = w[name].detach()
            velocity[name] = 0.9 * velocity[name] + gradient + weight_decay * w[name]
            w[name] = w[name] - lr * velocity[name]
    return history
