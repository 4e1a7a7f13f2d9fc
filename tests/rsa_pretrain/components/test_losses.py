import math

import pytest
import rival_methods
import rsa_algorithm1
import torch

from rsa_pretrain.components.losses import (
    info_nce,
    negative_cosine,
    normalised_mse,
    nt_xent,
    rsa_loss,
)


def random_views(requires_grad=False):
    """Four float64 outputs of shape (5, 7)."""
    return [torch.randn(5, 7, dtype=torch.float64, requires_grad=requires_grad) for _ in range(4)]


def test_normalised_mse_by_hand():
    """Equal directions cost 0, opposite ones 4, right angles 2; norms do not count."""
    a = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    b = torch.tensor([[5.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert normalised_mse(a, b).item() == pytest.approx((0 + 4 + 2) / 3)


def test_normalised_mse_is_squared_distance_of_unit_vectors():
    """The definition of BYOL's Eq. 2, before its expansion into a cosine."""
    a, b, *_ = random_views()
    unit_a, unit_b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    expected = (unit_a - unit_b).pow(2).sum(1).mean()
    torch.testing.assert_close(normalised_mse(a, b), expected)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_rsa_loss_equals_algorithm_1(beta):
    """The loss and its parts equal the slow float64 rewrite of Eq. 5."""
    views = random_views()
    rows = [view.tolist() for view in views]
    loss = rsa_loss(*views, beta)
    assert loss.total.item() == pytest.approx(rsa_algorithm1.loss(*rows, beta), rel=1e-12)
    assert loss.weak.item() == pytest.approx(rsa_algorithm1.loss(*rows, 0.0), rel=1e-12)
    assert loss.aggressive.item() == pytest.approx(rsa_algorithm1.loss(*rows, 1.0), rel=1e-12)


def test_rsa_loss_pairs_each_aggressive_view_with_the_other_crop():
    """z_a is drawn to z_w', not to its own weak view z_w: swapping the weak views matters."""
    z_a, z_a_prime, z_w, z_w_prime = random_views()
    aligned = rsa_loss(z_a, z_a_prime, z_a_prime, z_a, 0.0)
    assert aligned.total.item() == pytest.approx(0.0, abs=1e-12)
    straight = rsa_loss(z_a, z_a_prime, z_w, z_w_prime, 0.2).total
    swapped = rsa_loss(z_a, z_a_prime, z_w_prime, z_w, 0.2).total
    assert not torch.isclose(straight, swapped)


def test_rsa_loss_is_symmetric_in_the_two_crops():
    """Renaming the crops (primes on and off) leaves the loss as it is."""
    z_a, z_a_prime, z_w, z_w_prime = random_views()
    one = rsa_loss(z_a, z_a_prime, z_w, z_w_prime, 0.3).total
    other = rsa_loss(z_a_prime, z_a, z_w_prime, z_w, 0.3).total
    torch.testing.assert_close(one, other)


def test_targets_receive_no_gradient():
    """Weak projections get no gradient at all; aggressive predictions only as predictions."""
    z_a, z_a_prime, z_w, z_w_prime = random_views(requires_grad=True)
    rsa_loss(z_a, z_a_prime, z_w, z_w_prime, 0.3).total.backward()
    assert z_w.grad is None
    assert z_w_prime.grad is None

    def through_first(predictions):
        pairs = 0.7 * normalised_mse(predictions, z_w_prime.detach())
        return pairs + 0.3 * normalised_mse(predictions, z_a_prime.detach())

    (expected,) = torch.autograd.grad(through_first(z_a), z_a)
    torch.testing.assert_close(z_a.grad, expected)
    assert z_a_prime.grad.abs().sum() > 0


def test_aggressive_part_moves_both_predictions_when_beta_is_one():
    """With beta 1 only aggressive pairs count, each side a prediction once."""
    z_a, z_a_prime, z_w, z_w_prime = random_views(requires_grad=True)
    rsa_loss(z_a, z_a_prime, z_w, z_w_prime, 1.0).total.backward()
    (expected,) = torch.autograd.grad(normalised_mse(z_a, z_a_prime), z_a)
    torch.testing.assert_close(z_a.grad, expected)


def test_half_precision_is_compared_in_float32():
    """bfloat16 outputs cost what their float32 values cost."""
    views = [view.to(torch.bfloat16) for view in random_views()]
    half = rsa_loss(*views, 0.3).total
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, rsa_loss(*[view.float() for view in views], 0.3).total)


@pytest.mark.parametrize("shape", [(5, 6), (4, 7), (7,)])
def test_shapes_that_disagree_are_refused(shape):
    """Broadcasting would hide a mistake."""
    with pytest.raises(ValueError, match=r"must both be \(N, D\)"):
        normalised_mse(torch.randn(5, 7), torch.randn(*shape))


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_beta_outside_its_range_is_refused(beta):
    """A weight outside [0, 1] would reward disagreement."""
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\]"):
        rsa_loss(*random_views(), beta)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_equals_its_equation(temperature):
    """The vectorised loss equals SimCLR's Algorithm 1 as float64 loops."""
    z, z_prime, *_ = random_views()
    loss = nt_xent(z, z_prime, z, z_prime, 0, temperature)
    assert loss.item() == pytest.approx(
        rival_methods.nt_xent(z.tolist(), z_prime.tolist(), temperature)
    )


def test_nt_xent_of_parts_averages_to_the_whole():
    """Each device's rows against the whole batch: the mean over devices is the batch's loss."""
    z, z_prime = torch.randn(2, 6, 4, dtype=torch.float64)
    whole = nt_xent(z, z_prime, z, z_prime, 0, 0.5)
    parts = [
        nt_xent(z[first : first + 2], z_prime[first : first + 2], z, z_prime, first, 0.5)
        for first in (0, 2, 4)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_nt_xent_is_symmetric_in_the_views():
    """Swapping the two views of every image changes nothing; shuffling one of them does."""
    z, z_prime, *_ = random_views()
    loss = nt_xent(z, z_prime, z, z_prime, 0, 0.5)
    torch.testing.assert_close(nt_xent(z_prime, z, z_prime, z, 0, 0.5), loss)
    rolled = z_prime.roll(1, 0)
    assert not torch.isclose(nt_xent(z, rolled, z, rolled, 0, 0.5), loss)


def test_nt_xent_of_identical_vectors_is_the_logarithm_of_the_choices():
    """Six equal views: each guesses among the five others."""
    z = torch.ones(3, 4)
    loss = nt_xent(z, z, z, z, 0, 0.1)
    assert loss.item() == pytest.approx(math.log(5), rel=1e-6)


def test_info_nce_equals_its_equation():
    """The vectorised loss equals MoCo's Eq. 1 as float64 loops."""
    queries, keys, others, _ = random_views()
    queue = torch.nn.functional.normalize(others, dim=1)
    loss = info_nce(queries, keys, queue, 0.2).item()
    assert loss == pytest.approx(
        rival_methods.info_nce(queries.tolist(), keys.tolist(), others.tolist(), 0.2)
    )


def test_info_nce_passes_gradient_to_the_queries_alone():
    """Keys and queue are constants."""
    queries, keys, queue, _ = random_views(requires_grad=True)
    info_nce(queries, keys, queue, 0.2).backward()
    assert queries.grad.abs().sum() > 0
    assert keys.grad is None
    assert queue.grad is None


def test_contrastive_similarities_are_not_rounded_by_autocast():
    """Under bfloat16 autocast the losses of float32 projections stay what they were."""
    z, z_prime = torch.randn(2, 8, 16)
    queue = torch.nn.functional.normalize(torch.randn(9, 16), dim=1)
    plain = nt_xent(z, z_prime, z, z_prime, 0, 0.1), info_nce(z, z_prime, queue, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = nt_xent(z, z_prime, z, z_prime, 0, 0.1), info_nce(z, z_prime, queue, 0.1)
    assert [loss.item() for loss in cast] == pytest.approx([loss.item() for loss in plain])


def test_contrastive_losses_refuse_what_does_not_fit():
    """Shapes that disagree, rows outside the batch, a temperature of zero."""
    z, short = torch.randn(4, 3), torch.randn(3, 3)
    with pytest.raises(ValueError, match=r"must have the same shape, found \(4, 3\) and \(3, 3\)"):
        nt_xent(z, short, z, z, 0, 0.5)
    with pytest.raises(ValueError, match="rows 2 to 6 are outside 4 images"):
        nt_xent(z, z, z, z, 2, 0.5)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        nt_xent(z, z, z, z, 0, 0.0)
    with pytest.raises(ValueError, match=r"must both be \(N, D\)"):
        info_nce(z, short, z, 0.2)


def test_negative_cosine_by_hand():
    """Equal directions -1, right angles 0, opposite ones 1; half of the squared distance less 1."""
    a = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    b = torch.tensor([[5.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert negative_cosine(a, b).item() == pytest.approx((-1 + 1 + 0) / 3)
    torch.testing.assert_close(normalised_mse(a, b), 2 + 2 * negative_cosine(a, b))
