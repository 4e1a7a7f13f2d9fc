import pytest
import torch

from rsa_eval.metrics import TopKCounts, count_top_k


def test_counts_by_hand() -> None:
    """Ranks of the own class 0, 1 and 5 among six give one top-1 and two top-5 hits."""
    scores = torch.tensor([[9.0, 1, 2, 3, 4, 5], [1.0, 8, 9, 3, 4, 5], [1.0, 2, 3, 4, 5, 6]])
    assert count_top_k(scores, torch.tensor([0, 1, 0])) == TopKCounts(1, 2, 3)


def test_fewer_than_five_classes_all_count_for_top5() -> None:
    """With three classes top-5 is certain and top-1 is not."""
    counts = count_top_k(torch.tensor([[3.0, 2, 1], [3.0, 2, 1]]), torch.tensor([0, 2]))
    assert counts.percentages() == {"top1": 50.0, "top5": 100.0}


def test_equal_scores_rank_the_lower_class_first() -> None:
    """Constant scores over ten classes are right for class 0 alone, top-5 for 0 to 4."""
    assert count_top_k(torch.zeros(10, 10), torch.arange(10)) == TopKCounts(1, 5, 10)


def test_counts_add_up_before_the_one_division() -> None:
    """Batches of unequal size weigh by their samples."""
    total = TopKCounts(1, 1, 1) + TopKCounts(0, 1, 3)
    assert total.percentages() == {"top1": 25.0, "top5": 50.0}


def test_nan_is_refused() -> None:
    """A NaN score, which compares as false with everything, is no hit but an error."""
    with pytest.raises(ValueError, match="NaN"):
        count_top_k(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))


def test_nothing_counted_has_no_percentage() -> None:
    """An empty count is an error, not zero per cent."""
    with pytest.raises(ValueError, match="no samples"):
        TopKCounts(0, 0, 0).percentages()
