"""Bootstrap and average precision one image at a time, straight from their definitions."""

import numpy as np


def index_means(values, num_resamples, rng):
    """Draw the images of each resample one by one, and average each column."""
    drawn = (rng.integers(len(values), size=len(values)) for _ in range(num_resamples))
    return np.array([values[indices].mean(axis=0) for indices in drawn])


def index_class_means(values, labels, num_resamples, rng):
    """Average the means of the classes that a resample has."""
    replicates = []
    for _ in range(num_resamples):
        indices = rng.integers(len(values), size=len(values))
        values_drawn, labels_drawn = values[indices], labels[indices]
        means = [values_drawn[labels_drawn == label].mean(axis=0) for label in set(labels_drawn)]
        replicates.append(np.mean(means, axis=0))
    return np.array(replicates)


def repeated(counts, *arrays):
    """Repeat each image as often as a resample has it."""
    return [np.repeat(array, counts, axis=0) for array in arrays]


def voc_average_precision(scores, positive, eleven_points):
    """Everingham et al. 2010, Section 4.2, threshold by threshold, in percent."""
    recalls, precisions = [], []
    for threshold in sorted(set(scores), reverse=True):
        chosen = positive[scores >= threshold]
        recalls.append(int(chosen.sum()))
        precisions.append(chosen.sum() / len(chosen))
    total = int(positive.sum())
    best = [max(precisions[place:]) for place in range(len(precisions))]
    if eleven_points:
        reached = [
            next(p for recall, p in zip(recalls, best, strict=True) if 10 * recall >= tenth * total)
            for tenth in range(11)
        ]
        return 100 * sum(reached) / 11
    gained = np.diff([0, *recalls])
    return 100 * sum(gain * p for gain, p in zip(gained, best, strict=True)) / total
