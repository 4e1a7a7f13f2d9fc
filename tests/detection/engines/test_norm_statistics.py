import torch
from torch import Tensor, nn

from detection.engines.norm_statistics import update_bn_stats


def _norm_after(batches: list[Tensor]) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(2)
    norm.running_mean, norm.running_var = torch.tensor([0.3, 9.0]), torch.tensor([0.7, 1e-3])
    update_bn_stats(norm.train(), iter(batches), len(batches))
    return norm


def test_batches_that_a_norm_sees_nothing_of_do_not_count() -> None:
    """Statistics over three batches, one empty at any place, are bitwise those of the two."""
    torch.manual_seed(0)
    first, second, nothing = torch.randn(3, 2, 4, 4), torch.randn(1, 2, 4, 4) + 2, torch.empty(0)
    nothing = nothing.reshape(0, 2, 4, 4)
    expected = _norm_after([first, second])
    pixels = torch.cat([first, second]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(expected.running_mean, pixels.mean(1))
    for batches in ([nothing, first, second], [first, nothing, second], [first, second, nothing]):
        found = _norm_after(batches)
        assert torch.equal(found.running_mean, expected.running_mean)
        assert torch.equal(found.running_var, expected.running_var)


def test_norm_that_saw_nothing_keeps_its_statistics() -> None:
    """They do not become 0, with which the norm would divide by almost nothing."""
    norm = _norm_after([torch.empty(0, 2, 4, 4)] * 2)
    assert norm.running_mean.tolist() == torch.tensor([0.3, 9.0]).tolist()
    assert norm.running_var.tolist() == torch.tensor([0.7, 1e-3]).tolist()
