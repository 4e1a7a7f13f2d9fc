import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rsa_eval.evaluators.linear.heads import Heads, HeadTrainer, new_heads
from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, ProbeConfig
from rsa_pretrain.components.optim import LARS

CPU = torch.device("cpu")
DINOV2_RATES = LINEAR_PROTOCOLS["dinov2"].base_lr


def _batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Random batches of 8 images, the last of 3, with features of width 6 and 4 classes."""
    generator = torch.Generator().manual_seed(0)
    sizes = [8] * (count - 1) + [3]
    return [
        (
            torch.randn(size, 6, generator=generator),
            torch.randint(4, (size,), generator=generator),
        )
        for size in sizes
    ]


def _probe(**settings: Any) -> ProbeConfig:
    return ProbeConfig(epochs=1, milestones=(), batch_size=8, **settings)


def _trained(probe: ProbeConfig, decay: float = 1.0) -> tuple[Heads, list[Tensor]]:
    trainer = HeadTrainer(new_heads(6, 4, probe, 3, CPU), probe)
    losses = [
        trainer.step(features, labels, len(labels), decay).clone()
        for features, labels in _batches(5)
    ]
    return trainer.heads, losses


@pytest.mark.parametrize(
    "settings",
    [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "nesterov": True}, {"sgd_momentum": 0.0}],
)
def test_equal_to_autograd_and_torchs_sgd(settings: dict[str, Any]) -> None:
    """Losses and weights of five steps are those of differentiation and torch.optim.SGD."""
    probe = _probe(base_lr=20.0, **settings)
    heads, losses = _trained(probe, decay=0.5)
    layer = nn.Linear(6, 4)
    start = new_heads(6, 4, probe, 3, CPU)
    layer.weight.data, layer.bias.data = start.weight[0], start.bias[0]
    optimizer = torch.optim.SGD(
        layer.parameters(),
        lr=20.0 * 8 / 256 * 0.5,
        momentum=probe.sgd_momentum,
        weight_decay=probe.weight_decay,
        nesterov=probe.nesterov,
    )
    for (features, labels), found in zip(_batches(5), losses, strict=True):
        loss = functional.cross_entropy(layer(features), labels)
        torch.testing.assert_close(found, loss.detach()[None])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    torch.testing.assert_close(heads.weight[0], layer.weight.data)
    torch.testing.assert_close(heads.bias[0], layer.bias.data)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_parallel_heads_equal_separate_training_runs(optimizer: str) -> None:
    """Thirteen heads trained at once are the thirteen heads trained one by one."""
    settings = {"optimizer": optimizer, "weight_decay": 1e-3}
    heads, losses = _trained(_probe(base_lr=DINOV2_RATES, **settings))
    assert len(heads.bias) == 13
    for number, base_lr in enumerate(DINOV2_RATES):
        alone, own_losses = _trained(_probe(base_lr=base_lr, **settings))
        torch.testing.assert_close(heads.weight[number], alone.weight[0])
        torch.testing.assert_close(heads.bias[number], alone.bias[0])
        torch.testing.assert_close(torch.stack(losses)[:, number], torch.cat(own_losses))


def test_shares_of_a_batch_add_up() -> None:
    """Two parts of a batch and an empty one give the gradient and the loss of the whole batch."""
    features, labels = _batches(2)[0]
    trainers = [
        HeadTrainer(new_heads(6, 4, _probe(), 3, CPU), _probe(sgd_momentum=0.0)) for _ in range(4)
    ]
    start = trainers[0].heads.weight.clone()
    parts = [slice(0, 8), slice(0, 5), slice(5, 8), slice(8, 8)]
    losses = [
        trainer.step(features[part], labels[part], 8, 1.0).clone()
        for trainer, part in zip(trainers, parts, strict=True)
    ]
    moved = [trainer.heads.weight - start for trainer in trainers]
    torch.testing.assert_close(moved[0], moved[1] + moved[2])
    torch.testing.assert_close(losses[0], losses[1] + losses[2])
    assert not moved[3].any()
    assert not losses[3].any()


def test_lars_step_by_hand() -> None:
    """One image, one feature, two classes: each step is trust_coefficient |w| long, times lr.

    With weights ±3 and bias (4, 3) both classes have logits (16, -9) at x = 4; the image's class
    is the second, so p - y is (1, -1) up to exp(-25), dL/dW = (4, -4), dL/db = (1, -1).
    """
    probe = ProbeConfig(
        epochs=1,
        milestones=(),
        batch_size=512,
        base_lr=0.1,
        optimizer="lars",
        schedule="cosine_by_step",
    )
    heads = Heads(torch.tensor([[[3.0], [-3.0]]]), torch.tensor([[4.0, 3.0]]))
    trainer = HeadTrainer(heads, probe)
    trainer.step(torch.tensor([[4.0]]), torch.tensor([1]), 1, 1.0)
    # lr is 0.1 * 512 / 256; the update of W is as long as 0.001 |W|, along (1, -1) / sqrt(2).
    step = 0.2 * 0.001 * math.sqrt(18) / math.sqrt(2)
    expected = torch.tensor([[[3.0 - step], [-3.0 + step]]])
    torch.testing.assert_close(heads.weight, expected, rtol=0, atol=1e-6)
    step = 0.2 * 0.001 * 5 / math.sqrt(2)
    torch.testing.assert_close(
        heads.bias, torch.tensor([[4.0 - step, 3.0 + step]]), rtol=0, atol=1e-6
    )


def test_lars_moves_weights_as_in_pretraining() -> None:
    """A head's weights take the steps of rsa_pretrain's LARS, whose biases alone differ."""
    probe = _probe(base_lr=5.0, optimizer="lars", weight_decay=0.01)
    trainer = HeadTrainer(new_heads(6, 4, probe, 3, CPU), probe)
    weight = trainer.heads.weight[0].clone()
    optimizer = LARS([weight], 0.9, 0.01, 0.001, lr=5.0 * 8 / 256)
    for features, labels in _batches(5):
        logits = features @ weight.T + trainer.heads.bias[0]
        residuals = logits.softmax(dim=1) - functional.one_hot(labels, 4)
        weight.grad = residuals.T @ features / len(labels)
        optimizer.step()
        trainer.step(features, labels, len(labels), 1.0)
    torch.testing.assert_close(trainer.heads.weight[0], weight)


def test_initial_heads() -> None:
    """Weights are N(0, 0.01²) by the seed alone, biases 0, and all heads start alike."""
    probe = ProbeConfig(base_lr=(1.0, 2.0))
    heads = new_heads(2048, 100, probe, 0, CPU)
    assert heads.weight.shape == (2, 100, 2048)
    assert heads.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert heads.weight.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert not heads.bias.any()
    assert torch.equal(heads.weight[0], heads.weight[1])
    assert torch.equal(heads.weight, new_heads(2048, 100, probe, 0, CPU).weight)
    assert not torch.equal(heads.weight, new_heads(2048, 100, probe, 1, CPU).weight)


def test_initial_head_of_mean_shift() -> None:
    """It is torch's linear layer of that seed, and the global generator stays where it was."""
    torch.manual_seed(7)
    layer = nn.Linear(6, 4)
    before = torch.get_rng_state()
    heads = new_heads(6, 4, LINEAR_PROTOCOLS["mean_shift"], 7, CPU)
    assert torch.equal(heads.weight[0], layer.weight)
    assert torch.equal(heads.bias[0], layer.bias)
    assert torch.equal(before, torch.get_rng_state())
