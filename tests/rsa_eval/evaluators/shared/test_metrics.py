import pytest
import torch
from torch import Tensor

from rsa_eval.evaluators.shared.metrics import Answers, TopKCounts, answer


def answers_to(scores: Tensor, labels: Tensor) -> Answers:
    """The answers of one batch."""
    return Answers.sound([answer(scores, labels)])


def test_counts_by_hand() -> None:
    """Ranks of the own class 0, 1 and 5 among six give one top-1 and two top-5 hits."""
    scores = torch.tensor([[9.0, 1, 2, 3, 4, 5], [1.0, 8, 9, 3, 4, 5], [1.0, 2, 3, 4, 5, 6]])
    assert answers_to(scores, torch.tensor([0, 1, 0])).counts == TopKCounts(1, 2, 3)


@pytest.mark.parametrize(("num_classes", "has_top5"), [(1, False), (5, False), (6, True)])
def test_of_five_classes_or_fewer_there_is_no_top5(num_classes: int, has_top5: bool) -> None:
    """Where the first five are all classes, a top-5 of 100 would say nothing."""
    scores, labels = torch.zeros(2, num_classes), torch.zeros(2, dtype=torch.int64)
    counts = answers_to(scores, labels).counts
    assert ("top5" in counts.percentages(num_classes)) == has_top5
    assert counts.percentages(num_classes)["top1"] == counts.top1_percent == 100.0


def test_a_class_that_cannot_be_named_is_never_right() -> None:
    """Of ten classes two are ranked: those two count for top-5, the eight others do not."""
    scores = torch.full((10, 10), -torch.inf)
    scores[:, [4, 9]] = torch.tensor([2.0, 1.0])
    assert answers_to(scores, torch.arange(10)).counts == TopKCounts(1, 2, 10)


def test_of_more_than_five_ranked_classes_five_are_right() -> None:
    """Seven of ten classes are ranked: the first five count, unranked ones fill no place."""
    scores = torch.full((10, 10), -torch.inf)
    scores[:, 3:] = torch.arange(7, 0, -1.0)
    assert answers_to(scores, torch.arange(10)).counts == TopKCounts(1, 5, 10)


def test_equal_scores_rank_the_lower_class_first() -> None:
    """Constant scores over ten classes are right for class 0 alone, top-5 for 0 to 4."""
    assert answers_to(torch.zeros(10, 10), torch.arange(10)).counts == TopKCounts(1, 5, 10)


def test_the_predicted_class_is_the_first_of_the_best() -> None:
    """Ties go to the lower class, where no class can be named to class 0."""
    scores = torch.tensor([[1.0, 3, 3], [-torch.inf] * 3, [2.0, 0, 1]])
    answers = answers_to(scores, torch.tensor([2, 0, 1]))
    assert answers.predicted.tolist() == [1, 0, 0]
    assert answers.ranks.tolist() == [1, 8, 2]


def test_batches_are_joined_before_the_one_division() -> None:
    """Batches of unequal size weigh by their samples."""
    scores, labels = torch.eye(8), torch.tensor([0, 7, 7, 7, 7, 7, 7, 7])
    parts = [answer(scores[rows], labels[rows]) for rows in (slice(1), slice(1, None))]
    assert Answers.sound(parts).counts.percentages(8)["top1"] == 25.0


def test_nan_is_refused() -> None:
    """A NaN score, which compares as false with everything, is an error."""
    with pytest.raises(ValueError, match="NaN"):
        answers_to(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))


def test_nothing_counted_has_no_percentage() -> None:
    """An empty count is an error, not 0 %."""
    with pytest.raises(ValueError, match="no samples"):
        TopKCounts(0, 0, 0).percentages(10)
