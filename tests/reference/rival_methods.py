"""SimCLR, MoCo v2 and LARS written out in float64: no code of the package.

Losses are loops over rows of numbers; training steps are autograd on the papers' formulas.
"""

import math

import torch


def cosine(a, b):
    """<a, b> / (|a| |b|) of two lists of numbers."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def nt_xent(z, z_prime, temperature):
    """SimCLR Eq. 1 and Algorithm 1: the mean of l(i, j) + l(j, i) over the batch's pairs."""
    views = [row for pair in zip(z, z_prime, strict=True) for row in pair]  # 2k-1 and 2k are a pair
    similarity = [[cosine(a, b) for b in views] for a in views]
    total = 0.0
    for k in range(len(z)):
        for i, j in ((2 * k, 2 * k + 1), (2 * k + 1, 2 * k)):
            others = [m for m in range(len(views)) if m != i]
            denominator = sum(math.exp(similarity[i][m] / temperature) for m in others)
            total += -math.log(math.exp(similarity[i][j] / temperature) / denominator)
    return total / len(views)


def info_nce(q, k, queue, temperature):
    """MoCo Eq. 1, averaged over the queries."""
    total = 0.0
    for query, key in zip(q, k, strict=True):
        positive = math.exp(cosine(query, key) / temperature)
        negatives = sum(math.exp(cosine(query, other) / temperature) for other in queue)
        total += -math.log(positive / (positive + negatives))
    return total / len(q)


def unit(z):
    """Rows divided by their norm."""
    return z / z.pow(2).sum(1, keepdim=True).sqrt()


def moco_step(query, key, queue, v, v_prime, temperature):
    """Return MoCo's symmetrised loss and its new keys; logits as in MoCo's Algorithm 1."""
    with torch.no_grad():
        k, k_prime = unit(key(v)), unit(key(v_prime))
    loss = 0.0
    for q, own in ((unit(query(v)), k_prime), (unit(query(v_prime)), k)):
        logits = torch.cat([(q * own).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature
        loss = loss + (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()
    return loss, torch.cat([k, k_prime])


def sgd(parameters, velocity, loss, lr, momentum=0.9, weight_decay=1e-3):
    """Take one step of plain SGD in place."""
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for p, v, gradient in zip(parameters, velocity, gradients, strict=True):
            v.mul_(momentum).add_(gradient + weight_decay * p)
            p.sub_(lr * v)


def ema(target, online, tau):
    """Xi <- tau xi + (1 - tau) theta."""
    with torch.no_grad():
        for xi, theta in zip(target.parameters(), online.parameters(), strict=True):
            xi.copy_(tau * xi + (1 - tau) * theta)


def lars(w, gradients, lr, momentum, weight_decay, trust_coefficient):
    """You et al. 2017, Algorithm 1 without its loop over layers: one tensor, some steps.

    Args:
        w: Initial tensor, float64.
        gradients: One per step.
        lr: One rate per step.
        momentum: Of the velocity.
        weight_decay: Ignored, as the adaptation is, for tensors of one dimension or none.
        trust_coefficient: The paper's eta.
    """
    v = torch.zeros_like(w)
    for gradient, rate in zip(gradients, lr, strict=True):
        local = 1.0
        update = gradient
        if w.ndim > 1:
            update = gradient + weight_decay * w
            w_norm = math.sqrt(sum(x * x for x in w.flatten().tolist()))
            update_norm = math.sqrt(sum(x * x for x in update.flatten().tolist()))
            if w_norm > 0 and update_norm > 0:
                local = trust_coefficient * w_norm / update_norm
        v = momentum * v + local * update
        w = w - rate * v
    return w
