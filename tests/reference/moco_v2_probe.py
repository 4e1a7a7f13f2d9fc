"""MoCo v2's linear probe written out in NumPy: softmax gradient, momentum and schedule by hand."""

import numpy as np


def train(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    base_lr: float,
    milestones: tuple[int, ...],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Train in float64, step by step, and return weights (C, D) and biases (C,).

    The loss is the mean cross-entropy of a batch; the velocity is 0.9 times itself plus the
    gradient; the rate is divided by ten at each milestone.
    """
    weights = weights.astype(np.float64).copy()
    biases = np.zeros(len(weights))
    velocity_w, velocity_b = np.zeros_like(weights), np.zeros_like(biases)
    for epoch in range(epochs):
        lr = base_lr * batch_size / 256
        for milestone in milestones:
            if epoch >= milestone:
                lr = lr / 10
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        start = 0
        while start < len(labels):
            rows = order[start : start + batch_size]
            start += batch_size
            gradient_w, gradient_b = np.zeros_like(weights), np.zeros_like(biases)
            for row in rows:
                x = features[row].astype(np.float64)
                logits = weights @ x + biases
                probabilities = np.exp(logits - logits.max())
                probabilities /= probabilities.sum()
                probabilities[labels[row]] -= 1
                gradient_w += np.outer(probabilities, x) / len(rows)
                gradient_b += probabilities / len(rows)
            velocity_w = 0.9 * velocity_w + gradient_w
            velocity_b = 0.9 * velocity_b + gradient_b
            weights = weights - lr * velocity_w
            biases = biases - lr * velocity_b
    return weights, biases
