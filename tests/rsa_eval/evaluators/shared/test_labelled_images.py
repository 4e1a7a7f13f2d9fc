"""The metrics of a data set, by hand."""

import numpy as np
import pytest
import torch

from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.labelled_images import accuracies, headline_of
from rsa_eval.evaluators.shared.metrics import Answers


@pytest.mark.parametrize(
    ("data_set", "expected", "headline"),
    [
        # Right are 3 of 4 and 0 of 1: 60 % of the images, (75 + 0) / 2 as the mean over classes.
        ("oxford_pets", {"top1": 60.0, "mean_per_class": 37.5}, "mean_per_class"),
        ("dtd", {"top1": 60.0}, "top1"),
        ("my features", {"top1": 60.0}, "top1"),
    ],
)
def test_a_data_set_decides_the_headline(
    data_set: str, expected: dict[str, float], headline: str
) -> None:
    """Pets report the mean over classes beside top-1; DTD and unknown sets top-1 alone."""
    wrong = np.array([0, 0, 0, 1, 1], np.int32)
    answers = Answers(predicted=np.array([0, 0, 0, 1, 0], np.int32), ranks=wrong)
    predictions = kept_answers(torch.tensor([0, 0, 0, 0, 1]), {"": [answers]}, 2)
    assert headline_of(data_set) == headline
    metrics = accuracies(answers.counts, predictions, headline)
    assert {name: metric.value for name, metric in metrics.items()} == expected
    assert {metric.unit for metric in metrics.values()} == {"%"}
