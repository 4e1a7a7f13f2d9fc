import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from rsa_eval.features import LabelledFeatures
from rsa_eval.knn import class_scores, knn_counts, nearest_neighbours
from rsa_eval.knn_config import KNNSetting
from rsa_eval.metrics import TopKCounts

CPU = torch.device("cpu")


def _labelled(rows: list[list[float]], labels: list[int]) -> LabelledFeatures:
    return LabelledFeatures(torch.tensor(rows), torch.tensor(labels))


def _unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def _random_problem(seed: int) -> tuple[LabelledFeatures, LabelledFeatures]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, 12, generator=generator)

    def draw(count: int) -> LabelledFeatures:
        labels = torch.randint(7, (count,), generator=generator)
        noise = torch.randn(count, 12, generator=generator)
        return LabelledFeatures(centres[labels] + 2 * noise, labels)

    return draw(150), draw(61)


# One voter of class 0 close by, two of class 1 farther away.
BANK = _labelled([_unit(5), _unit(40), _unit(-40), _unit(90)], [0, 1, 1, 2])
QUERY = _labelled([_unit(0)], [0])


@pytest.mark.parametrize(
    ("setting", "right"),
    [
        (KNNSetting(k=1, temperature=None), 1),
        (KNNSetting(k=3, temperature=None), 0),  # one vote against two
        (KNNSetting(k=3, temperature=0.1), 1),  # exp(9.96) against 2 exp(7.66)
        (KNNSetting(k=3, temperature=1.0), 0),  # exp(0.996) against 2 exp(0.766)
    ],
)
def test_hand_worked_neighbours(setting: KNNSetting, right: int) -> None:
    """The nearest wins alone or by weight, and is outvoted without or with a flat weight."""
    (counts,) = knn_counts(BANK, QUERY, [setting], 3, 4, CPU)
    assert counts == TopKCounts(right, 1, 1)


def test_scores_are_the_sum_of_weighted_votes() -> None:
    """Up to the common factor exp(s_max / T), score_c = Σ exp(s / T)·1[y = c]."""
    similarities = torch.tensor([[0.9, 0.7, 0.2]])
    scores = class_scores(similarities, torch.tensor([[2, 0, 2]]), 4, 0.5)
    expected = [math.exp(1.4), 0.0, math.exp(1.8) + math.exp(0.4), 0.0]
    factor = math.exp(-1.8)
    assert scores[0].tolist() == pytest.approx([value * factor for value in expected])


def test_small_temperature_does_not_overflow() -> None:
    """At T = 1e-4 a bare exp(s / T) is infinite; the vote still goes to the nearest."""
    scores = class_scores(torch.tensor([[0.99, 0.98]]), torch.tensor([[1, 0]]), 2, 1e-4)
    assert scores.isfinite().all()
    assert scores.argmax().item() == 1


@pytest.mark.parametrize(("k", "temperature"), [(1, None), (20, None), (20, 0.07), (100, 0.1)])
def test_equal_to_scikit_learn(k: int, temperature: float | None) -> None:
    """Predictions are those of scikit-learn's brute force with the same weights."""
    bank, queries = _random_problem(0)

    def normalised(features: Tensor) -> np.ndarray:
        array = features.double().numpy()
        return array / np.linalg.norm(array, axis=1, keepdims=True)

    def weights(distances: np.ndarray) -> np.ndarray:
        return (
            np.ones_like(distances)
            if temperature is None
            else np.exp((1 - distances) / temperature)
        )

    classifier = KNeighborsClassifier(k, weights=weights, algorithm="brute", metric="cosine")
    classifier.fit(normalised(bank.features), bank.labels.numpy())
    right = classifier.predict(normalised(queries.features)) == queries.labels.numpy()
    (counts,) = knn_counts(bank, queries, [KNNSetting(k=k, temperature=temperature)], 7, 16, CPU)
    assert counts.top1 == right.sum()
    assert counts.total == len(queries.labels)


def test_all_settings_in_one_pass_equal_each_alone() -> None:
    """A smaller k takes a prefix of the neighbours of the largest."""
    bank, queries = _random_problem(1)
    settings = [KNNSetting(k=k, temperature=t) for k in (3, 50, 10) for t in (None, 0.1)]
    together = knn_counts(bank, queries, settings, 7, 16, CPU)
    alone = [knn_counts(bank, queries, [setting], 7, 16, CPU)[0] for setting in settings]
    assert together == alone


def test_chunks_do_not_matter() -> None:
    """Chunks of one, of a size that leaves a partial last one, and one for all agree."""
    bank, queries = _random_problem(2)
    settings = [KNNSetting(k=10, temperature=0.1)]
    results = [knn_counts(bank, queries, settings, 7, size, CPU) for size in (1, 16, 1000)]
    assert results[0] == results[1] == results[2]


def test_k_beyond_the_bank_takes_the_whole_bank() -> None:
    """K = 200 of a bank of 150 equals k = 150."""
    bank, queries = _random_problem(3)
    settings = [KNNSetting(k=k, temperature=0.1) for k in (150, 200)]
    whole, beyond = knn_counts(bank, queries, settings, 7, 16, CPU)
    assert whole == beyond


def test_tied_neighbours_are_taken_in_bank_order() -> None:
    """Of five equal similarities the first three columns are chosen, after the larger one."""
    similarities = torch.tensor([[0.5, 0.5, 0.1, 0.5, 0.9, 0.5, 0.5]])
    values, columns = nearest_neighbours(similarities, 4)
    assert columns.tolist() == [[4, 0, 1, 3]]
    assert values[0].tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])


def test_many_ties_equal_a_stable_sort() -> None:
    """On coarse random numbers the choice is that of a stable descending sort of whole rows."""
    generator = torch.Generator().manual_seed(0)
    similarities = torch.randint(0, 5, (40, 90), generator=generator).float()
    _, columns = nearest_neighbours(similarities, 13)
    expected = similarities.sort(dim=1, descending=True, stable=True).indices[:, :13]
    assert torch.equal(columns, expected)


def test_tied_classes_go_to_the_lower_index() -> None:
    """One vote each for class 2 and class 1 makes class 1 the prediction."""
    bank = _labelled([_unit(10), _unit(-10)], [2, 1])
    (counts,) = knn_counts(
        bank, _labelled([_unit(0)], [1]), [KNNSetting(k=2, temperature=None)], 3, 1, CPU
    )
    assert counts.top1 == 1
