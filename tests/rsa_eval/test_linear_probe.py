from collections import Counter
from types import ModuleType
from typing import Any

import pytest
import torch

from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.linear import evaluate_linear
from rsa_eval.features import LabelledFeatures
from rsa_eval.knn_config import KNNConfig
from rsa_eval.linear_config import LinearConfig, ProbeConfig
from rsa_eval.linear_probe import (
    cached_batches,
    learning_rate,
    new_head,
    online_batches,
    read_order,
    score_probe,
    train_probe,
)
from rsa_eval.subject import Subject
from rsa_pretrain.config_files import parse_tree, to_tree
from rsa_pretrain.data import open_images
from rsa_pretrain.errors import UserError

CPU = torch.device("cpu")


def _small_features() -> LabelledFeatures:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (53,), generator=generator)
    centres = torch.randn(4, 6, generator=generator)
    noise = torch.randn(53, 6, generator=generator)
    return LabelledFeatures(0.3 * (centres[labels] + noise), labels)


def _linear_config(knn_config: KNNConfig, **probe: Any) -> LinearConfig:
    tree = {"data": to_tree(knn_config.data), "device": "cpu", "probe": probe}
    return parse_tree(LinearConfig, tree, "test")


def test_equal_to_a_slow_literal_rewrite(moco_v2_probe: ModuleType) -> None:
    """The same seed gives the weights of moco_v2 written out in NumPy, in float64."""
    train = _small_features()
    probe = ProbeConfig(mode="cached", epochs=10, milestones=(6, 8), batch_size=16)
    head = new_head(6, 4, probe, 5, CPU)
    start = head.weight.detach().numpy().copy()
    train_probe(cached_batches(train, probe, 5, CPU), 53, head, probe)
    weights, biases = moco_v2_probe.train(
        train.features.numpy(),
        train.labels.numpy(),
        start,
        epochs=10,
        batch_size=16,
        base_lr=30.0,
        milestones=(6, 8),
        seed=5,
    )
    # Forty steps in float32 against float64; the weights reach about 3.
    torch.testing.assert_close(
        head.weight.detach().double(), torch.from_numpy(weights), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        head.bias.detach().double(), torch.from_numpy(biases), atol=1e-4, rtol=1e-4
    )


def test_each_image_once_per_epoch() -> None:
    """53 images in batches of 16 make four steps an epoch, the last of five images."""
    probe = ProbeConfig(epochs=2, milestones=(), batch_size=16)
    batches = list(read_order(53, probe, 0))
    assert [len(batch) for batch in batches] == [16, 16, 16, 5] * 2
    assert set(Counter(key for batch in batches for key in batch).values()) == {1}
    assert {key for batch in batches for key in batch} == {
        (epoch, image) for epoch in range(2) for image in range(53)
    }
    assert batches[:4] != batches[4:]


def test_learning_rate_by_hand() -> None:
    """At batch 128 the rate is 15, then 1.5 from epoch 60 and 0.15 from epoch 80."""
    probe = ProbeConfig(batch_size=128)
    rates = [learning_rate(probe, epoch) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == pytest.approx([15, 15, 1.5, 1.5, 0.15, 0.15])


def test_initial_head() -> None:
    """Weights are N(0, 0.01²) by the seed alone, biases 0."""
    head = new_head(2048, 100, ProbeConfig(), 0, CPU)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert head.weight.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert not head.bias.any()
    assert torch.equal(head.weight, new_head(2048, 100, ProbeConfig(), 0, CPU).weight)


def test_score_counts_every_test_image() -> None:
    """A head that names the largest of two inputs is right where the label says so."""
    head = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    test = LabelledFeatures(torch.tensor([[2.0, 1], [1.0, 2], [3.0, 0]]), torch.tensor([0, 1, 1]))
    counts = score_probe(head, test)
    assert (counts.top1, counts.top5, counts.total) == (2, 3, 3)


def test_diverging_loss_stops_with_advice() -> None:
    """A loss that is not finite names the epoch and the setting to change."""
    train = _small_features()
    broken = LabelledFeatures(train.features * 1e30, train.labels)
    probe = ProbeConfig(mode="cached", epochs=3, milestones=(), base_lr=1e20)
    head = new_head(6, 4, probe, 0, CPU)
    with pytest.raises(UserError, match=r"loss is (nan|inf) in epoch .*lower probe\.base_lr"):
        train_probe(cached_batches(broken, probe, 0, CPU), 53, head, probe)


def test_online_views_are_fresh_each_epoch_and_repeatable(
    subject: Subject, knn_config: KNNConfig
) -> None:
    """An image's features differ between epochs; a second run repeats them exactly."""
    config = _linear_config(knn_config, epochs=2, milestones=[], batch_size=60)
    images = open_images(config.data, "train")
    orders = list(read_order(60, config.probe, config.seed))
    first, again = (list(online_batches(subject, images, config)) for _ in range(2))
    for (features, labels), (same, _) in zip(first, again, strict=True):
        assert torch.equal(features, same)
        assert labels.shape == (60,)
    row = {
        epoch: features[[image for _, image in order].index(0)]
        for epoch, (order, (features, _)) in enumerate(zip(orders, first, strict=True))
    }
    assert not torch.equal(row[0], row[1])


def test_online_without_augmentation_equals_cached(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """With the whole image as crop and no flip both modes train on the same features."""
    same = {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip_probability": 0.0}
    losses = [
        evaluate_linear(
            subject,
            _linear_config(knn_config, mode=mode, epochs=3, milestones=[], **same),
            workspace,
        ).details["loss_by_epoch"]
        for mode in ("online", "cached")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # batches round differently


def test_deviations_are_recorded(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """What differs from the published protocol stands in the record, and nothing else."""
    config = _linear_config(knn_config, mode="cached", epochs=2, milestones=[1])
    record = evaluate_linear(subject, config, workspace)
    assert record.deviations == [
        "60 training images (protocol: all)",
        "30 test images (protocol: all)",
        "mode cached (protocol: online)",
        "epochs 2 (protocol: 100)",
        "milestones 1 (protocol: 60 and 80)",
    ]
    assert record.num_samples == 30
    assert len(record.details["loss_by_epoch"]) == 2
