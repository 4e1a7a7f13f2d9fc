"""Mean Shift's linear probe written out in NumPy: scaling, softmax gradient, decay and momentum."""

import math

import numpy as np


def scaling(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation, (D,), of unit-length training features.

    The variance is divided by N - 1, and 1e-5 is added to it.
    """
    rows = [row / math.sqrt(sum(float(x) ** 2 for x in row)) for row in train.astype(np.float64)]
    width, count = train.shape[1], len(rows)
    means, deviations = np.zeros(width), np.zeros(width)
    for column in range(width):
        values = [row[column] for row in rows]
        means[column] = sum(values) / count
        variance = sum((value - means[column]) ** 2 for value in values) / (count - 1)
        deviations[column] = math.sqrt(variance + 1e-5)
    return means, deviations


def scale(features: np.ndarray, statistics: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Scale features (N, D) by the training features' statistics."""
    means, deviations = statistics
    rows = [row / np.linalg.norm(row) for row in features.astype(np.float64)]
    return np.stack([(row - means) / deviations for row in rows])


def train(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    biases: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    base_lr: float,
    milestones: tuple[int, ...],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Train on scaled features in float64 and return weights (C, D) and biases (C,).

    1e-4 times the parameter joins the gradient of weights and biases alike.
    """
    weights, biases = weights.astype(np.float64), biases.astype(np.float64)
    velocity_w, velocity_b = np.zeros_like(weights), np.zeros_like(biases)
    lr = base_lr * batch_size / 256
    for epoch in range(epochs):
        if epoch in milestones:
            lr = lr / 10
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        for start in range(0, len(labels), batch_size):
            rows = order[start : start + batch_size]
            gradient_w, gradient_b = 1e-4 * weights, 1e-4 * biases
            for row in rows:
                exponentials = np.exp(weights @ features[row] + biases)
                for number, exponential in enumerate(exponentials):
                    error = exponential / exponentials.sum() - (number == labels[row])
                    gradient_w[number] += error * features[row] / len(rows)
                    gradient_b[number] += error / len(rows)
            velocity_w = 0.9 * velocity_w + gradient_w
            velocity_b = 0.9 * velocity_b + gradient_b
            weights = weights - lr * velocity_w
            biases = biases - lr * velocity_b
    return weights, biases
