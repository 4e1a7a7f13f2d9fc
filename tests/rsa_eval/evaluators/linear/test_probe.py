import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mean_shift_probe
import moco_v2_probe
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.batches import ReadOrder, cached_batches
from rsa_eval.evaluators.linear.evaluator import evaluate_linear
from rsa_eval.evaluators.linear.heads import Heads, HeadTrainer, new_heads
from rsa_eval.evaluators.linear.probe import rate_decay, score_heads, train_probe
from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, LinearConfig, ProbeConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.evaluators.shared.metrics import Answers, TopKCounts, answer
from rsa_eval.features.extract import evaluation_features
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.scaling import measure, unscaled
from rsa_eval.features.subject import Subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

CPU = torch.device("cpu")
TRAINING: dict[str, Any] = {"epochs": 10, "milestones": (6, 8), "batch_size": 16}


def _small_features(seed: int = 0) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(4, (53,), generator=generator)
    noise = torch.randn(53, 6, generator=generator)
    return LabelledFeatures(0.3 * (centres[labels] + noise), labels)


def _linear_config(knn_config: KNNConfig, **settings: Any) -> LinearConfig:
    tree = {"data": to_tree(knn_config.data), "device": "cpu", **settings}
    return parse_tree(LinearConfig, tree, "test")


def _train(
    train: LabelledFeatures,
    probe: ProbeConfig,
    seed: int,
    folder: Path,
    scaling: Callable[[Tensor], Tensor] = unscaled,
) -> ProbeState:
    """Train a probe on cached features."""
    width, num_classes = train.features.shape[1], 4
    trainer = HeadTrainer(new_heads(width, num_classes, probe, seed, CPU), probe)
    state = ProbeState(trainer, "test", folder / "state.pt")
    order = ReadOrder(len(train.labels), probe.batch_size, probe.epochs, seed)
    batches = cached_batches(train, order, scaling, CPU)
    train_probe(state, batches, order, save_every_minutes=5)
    return state


def _assert_equal_to_oracle(heads: Heads, weights: np.ndarray, biases: np.ndarray) -> None:
    # Forty steps in float32 against float64; the weights reach about 3.
    tolerance = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(heads.weight[0].double(), torch.from_numpy(weights), **tolerance)
    torch.testing.assert_close(heads.bias[0].double(), torch.from_numpy(biases), **tolerance)


def _num_right(weights: np.ndarray, biases: np.ndarray, features: np.ndarray, labels: Any) -> int:
    right = [
        int(np.argmax(weights @ row + biases)) == label
        for row, label in zip(features, labels.tolist(), strict=True)
    ]
    return sum(right)


def test_moco_v2_equals_a_slow_literal_rewrite(tmp_path: Path) -> None:
    """The same seed gives the weights and the accuracy of moco_v2 in NumPy, in float64."""
    train, test = _small_features(), _small_features(1)
    probe = ProbeConfig(mode="cached", **TRAINING)
    start = new_heads(6, 4, probe, 5, CPU).weight[0].numpy()
    heads = _train(train, probe, 5, tmp_path).trainer.heads
    weights, biases = moco_v2_probe.train(
        train.features.numpy(),
        train.labels.numpy(),
        start,
        base_lr=30.0,
        seed=5,
        **TRAINING,
    )
    _assert_equal_to_oracle(heads, weights, biases)
    (counts,) = counts_of(score_heads(heads, test, unscaled))
    assert counts is not None
    assert counts.top1 == _num_right(weights, biases, test.features.numpy(), test.labels)
    assert counts.top1 > 27  # more than twice what chance gives: it has learnt


def test_mean_shift_equals_a_slow_literal_rewrite(tmp_path: Path) -> None:
    """Scaling, weights and accuracy are those of mean_shift in NumPy, in float64."""
    train, test = _small_features(), _small_features(1)
    # The published rate hardly moves a probe in forty steps.
    changes = TRAINING | {"mode": "cached", "base_lr": (1.0,)}
    probe = LINEAR_PROTOCOLS["mean_shift"].model_copy(update=changes)
    start = new_heads(6, 4, probe, 5, CPU)
    scaling = measure(train.features)
    heads = _train(train, probe, 5, tmp_path, scaling).trainer.heads
    statistics = mean_shift_probe.scaling(train.features.numpy())
    expected = mean_shift_probe.scale(train.features.numpy(), statistics)
    torch.testing.assert_close(
        scaling(train.features).double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-5
    )
    weights, biases = mean_shift_probe.train(
        expected,
        train.labels.numpy(),
        start.weight[0].numpy(),
        start.bias[0].numpy(),
        base_lr=1.0,
        seed=5,
        **TRAINING,
    )
    _assert_equal_to_oracle(heads, weights, biases)
    (counts,) = counts_of(score_heads(heads, test, scaling))
    assert counts is not None
    scaled_test = mean_shift_probe.scale(test.features.numpy(), statistics)
    assert counts.top1 == _num_right(weights, biases, scaled_test, test.labels)
    assert counts.top1 > 27


def test_standardised_features_have_mean_0_and_variance_1() -> None:
    """Also where the rows come in several blocks, and where a feature is constant."""
    features = torch.randn(9000, 3) * torch.tensor([1.0, 5.0, 0.5]) + 2
    found = measure(features)(features)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    unit = torch.nn.functional.normalize(features)
    shrunk = unit.var(dim=0) / (unit.var(dim=0) + 1e-5)  # by the 1e-5 under the root
    torch.testing.assert_close(found.var(dim=0), shrunk, atol=1e-4, rtol=0)
    constant = torch.ones(5, 2)
    assert measure(constant)(constant).isfinite().all()


def test_cached_features_are_scaled_a_batch_at_a_time() -> None:
    """No second copy of all features is made: the scaling never sees more than a batch."""
    train, sizes = _small_features(), []
    scaling = measure(train.features)

    def noting(features: Tensor) -> Tensor:
        sizes.append(len(features))
        return scaling(features)

    order = ReadOrder(len(train.labels), 16, 1, 0)
    found = torch.cat([rows for rows, _ in cached_batches(train, order, noting, CPU)(0)])
    images = np.concatenate([share for _, share in order.shares(0)])
    assert max(sizes) == 16
    assert torch.equal(found, scaling(train.features)[torch.from_numpy(images)])


def test_each_image_once_per_epoch() -> None:
    """53 images in batches of 16 make four steps an epoch, the last of five images."""
    order = ReadOrder(num_images=53, batch_size=16, epochs=2, seed=0)
    steps = list(order.shares(0))
    assert [len(images) for _, images in steps] == [16, 16, 16, 5] * 2
    assert [order.images_in(step) for step in range(8)] == [16, 16, 16, 5] * 2
    keys = [(epoch, image) for epoch, images in steps for image in images.tolist()]
    assert Counter(keys) == Counter((epoch, image) for epoch in range(2) for image in range(53))
    assert not np.array_equal(steps[0][1], steps[4][1])


def test_an_order_can_start_anywhere() -> None:
    """From step 3 on it reads what it reads there when it starts at step 0."""
    order = ReadOrder(num_images=53, batch_size=16, epochs=2, seed=0)
    for (epoch, images), (same_epoch, same) in zip(
        list(order.shares(0))[3:], order.shares(3), strict=True
    ):
        assert epoch == same_epoch
        assert np.array_equal(images, same)


def test_milestones_by_hand() -> None:
    """The rate is whole, then a tenth from epoch 60 and a hundredth from epoch 80."""
    probe = ProbeConfig()
    rates = [rate_decay(probe, epoch, 0.0) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosines_by_hand() -> None:
    """SimSiam's rate stands still within an epoch; DINOv2's falls at each step."""
    simsiam = LINEAR_PROTOCOLS["simsiam"]
    rates = [rate_decay(simsiam, epoch, progress) for epoch, progress in ((0, 0.01), (45, 0.5))]
    assert rates == pytest.approx([1.0, 0.5])
    assert rate_decay(simsiam, 30, 0.34) == pytest.approx(0.75)  # cos 60° = 1/2
    assert rate_decay(simsiam, 89, 0.999) == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)
    assert rate_decay(LINEAR_PROTOCOLS["dinov2"], 3, 1 / 3) == pytest.approx(0.75)


def counts_of(answers: list[Answers | None]) -> list[TopKCounts | None]:
    """Return the hits of each head."""
    return [None if own is None else own.counts for own in answers]


def test_score_counts_every_test_image() -> None:
    """A head that names the larger of two inputs is right where the label says so; one diverged."""
    weight = torch.stack([torch.eye(2), torch.full((2, 2), math.nan), -torch.eye(2)])
    heads = Heads(weight, torch.zeros(3, 2))
    test = LabelledFeatures(torch.tensor([[2.0, 1], [1.0, 2], [3.0, 0]]), torch.tensor([0, 1, 1]))
    assert counts_of(score_heads(heads, test, unscaled)) == [
        TopKCounts(2, 3, 3),
        None,
        TopKCounts(1, 3, 3),
    ]


def test_all_heads_together_count_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores with ties and infinities, in several chunks; one head has no number in one row.

    On a device without values all is computed before the first count is read.
    """
    heads = Heads(torch.randint(-1, 2, (4, 8, 6)).float(), torch.zeros(4, 8))
    heads.bias[1, 2], heads.bias[2, 5], heads.weight[3, 7, 5] = -math.inf, math.inf, math.inf
    test = LabelledFeatures(torch.randint(1, 3, (53, 6)).float(), torch.randint(8, (53,)))
    test.features[50, 5] = 0
    scores = heads.scores(test.features)
    assert (scores[:, 0].sort(dim=1).values.diff(dim=1) == 0).any()
    expected = [Answers.sound([answer(scores[:, head], test.labels)]).counts for head in range(3)]
    assert len(set(expected)) == 3
    monkeypatch.setattr("rsa_eval.evaluators.linear.probe._SCORED_AT_ONCE", 10)
    assert counts_of(score_heads(heads, test, unscaled)) == [*expected, None]
    scored: list[int] = []

    def noting(features: Tensor) -> Tensor:
        scored.append(len(features))
        return features

    on_meta = Heads(heads.weight.to("meta"), heads.bias.to("meta"))
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        score_heads(on_meta, test, noting)
    assert sum(scored) == 53


def test_diverging_loss_stops_with_advice(tmp_path: Path) -> None:
    """If no loss is finite, the epoch and the setting to change are named."""
    train = _small_features()
    broken = LabelledFeatures(train.features * 1e30, train.labels)
    probe = ProbeConfig(mode="cached", epochs=3, milestones=(), base_lr=(1e20, 1e21))
    with pytest.raises(UserError, match=r"loss is (nan|inf) in epoch .*\.base_lr \(now 1e\+20, "):
        _train(broken, probe, 0, tmp_path)


def test_one_diverging_head_leaves_the_others_alone(tmp_path: Path) -> None:
    """The head beside it trains as if it were by itself."""
    probe = ProbeConfig(epochs=3, milestones=(), batch_size=16, base_lr=(1.0, 5e39))
    alone = probe.model_copy(update={"base_lr": (1.0,)})
    both = _train(_small_features(), probe, 0, tmp_path)
    expected = _train(_small_features(), alone, 0, tmp_path / "alone")
    heads = both.trainer.heads
    assert not heads.weight[1].isfinite().all()
    torch.testing.assert_close(heads.weight[0], expected.trainer.heads.weight[0])


@pytest.mark.parametrize("standardise", [False, True])
def test_online_without_augmentation_equals_cached(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, standardise: bool
) -> None:
    """With the whole image as crop and no flip both modes train on the same features."""
    same = {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip_probability": 0.0}
    same |= {"epochs": 3, "milestones": [], "standardise": standardise, "base_lr": 1.0}
    losses = [
        evaluate_linear(
            subject, _linear_config(knn_config, probe={"mode": mode, **same}), workspace
        ).details["loss_by_epoch"]
        for mode in ("online", "cached")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # batches round differently


def test_deviations_are_recorded(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """The record lists exactly the departures from the published protocol."""
    probe = {"mode": "cached", "epochs": 2, "milestones": [1]}
    result = evaluate_linear(subject, _linear_config(knn_config, probe=probe), workspace)
    assert result.deviations == [
        "60 training images (protocol: all)",
        "30 test images (protocol: all)",
        "epochs 2 (protocol: 100)",
        "milestones 1 (protocol: 60 and 80)",
        "mode cached (protocol: online)",
    ]
    assert result.num_samples == 30
    assert result.details["mode"] == "cached"
    assert len(result.details["loss_by_epoch"]) == 2


def test_the_head_is_chosen_on_held_out_training_images(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """The record gives each head's held-out accuracy and tests the first of the best ones."""
    probe = {"mode": "cached", "epochs": 5, "batch_size": 16, "held_out_share": 0.5}
    config = _linear_config(knn_config, protocol="dinov2", probe=probe)
    result = evaluate_linear(subject, config, workspace)
    heads = result.details["heads"]
    assert [head["base_lr"] for head in heads] == list(LINEAR_PROTOCOLS["dinov2"].base_lr)
    accuracies = [head["held_out_top1"] for head in heads]
    best = accuracies.index(max(accuracies))
    assert min(accuracies) < max(accuracies)
    assert result.details["chosen_base_lr"] == heads[best]["base_lr"]
    assert result.details["loss_by_epoch"] == heads[best]["loss_by_epoch"]
    assert result.details["num_held_out_images"] == 30


def test_heads_that_all_diverge_at_the_end_give_no_accuracy(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """One step from finite losses to weights of no number: an error, not an accuracy of chance."""
    for base_lr in (5e38, [5e38, 4e38]):
        probe = {"mode": "cached", "epochs": 1, "milestones": [], "base_lr": base_lr}
        with pytest.raises(UserError, match=r"diverged in its last epoch; lower probe\.base_lr"):
            evaluate_linear(subject, _linear_config(knn_config, probe=probe), workspace)


def test_no_head_is_trained_on_held_out_images(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training and held-out images are parts of the training split without an image in common."""
    rows: dict[str, set[int]] = {}

    def noting(subject: Subject, images: ImageSet, config: Any, label: str) -> LabelledFeatures:
        rows[label] = set(images.rows.tolist())
        return evaluation_features(subject, images, config, label)

    monkeypatch.setattr("rsa_eval.evaluators.linear.evaluator.evaluation_features", noting)
    probe = {"mode": "cached", "epochs": 1, "held_out_share": 0.25}
    config = _linear_config(knn_config, protocol="dinov2", probe=probe)
    evaluate_linear(subject, config, workspace)
    train, held_out = rows["train features"], rows["held-out features"]
    assert (len(train), len(held_out)) == (45, 15)
    assert train | held_out == set(open_images(config.data, "train").rows.tolist())


def test_a_long_tail_keeps_its_rare_class_in_training(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of classes of 60, 30 and 3 images a third of each is held out, not equal numbers."""
    labels = [0] * 60 + [1] * 30 + [2] * 3
    pixels = np.random.default_rng(0).integers(0, 256, (93, 8, 8, 3), dtype=np.uint8)
    images = ImageSet.from_array("tail", pixels, labels, ["often", "sometimes", "rarely"])
    counts: dict[str, list[int]] = {}

    def noting(subject: Subject, images: ImageSet, config: Any, label: str) -> LabelledFeatures:
        counts[label] = np.bincount(images.require_labels()).tolist()
        return evaluation_features(subject, images, config, label)

    monkeypatch.setattr(
        "rsa_eval.evaluators.linear.evaluator.open_splits", lambda config: (images, images)
    )
    monkeypatch.setattr("rsa_eval.evaluators.linear.evaluator.evaluation_features", noting)
    probe = {"mode": "cached", "epochs": 1, "held_out_share": 1 / 3}
    config = _linear_config(knn_config, protocol="dinov2", probe=probe)
    evaluate_linear(subject, config, workspace)
    assert counts["train features"] == [40, 20, 2]
    assert counts["held-out features"] == [20, 10, 1]


def test_a_share_without_an_image_is_refused(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """A thousandth of sixty images is none to choose a head on."""
    probe = {"mode": "cached", "epochs": 1, "held_out_share": 0.001}
    config = _linear_config(knn_config, protocol="dinov2", probe=probe)
    with pytest.raises(UserError, match=r"holds out none .* set probe\.held_out_share="):
        evaluate_linear(subject, config, workspace)


def _state_bytes(backbone: nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.contiguous().numpy().tobytes()
        for name, tensor in backbone.state_dict().items()
    }


@pytest.mark.parametrize("mode", ["online", "cached"])
@pytest.mark.parametrize("protocol", LINEAR_PROTOCOLS)
def test_every_protocol_leaves_the_backbone_unmoved(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, protocol: str, mode: str
) -> None:
    """Every parameter and BatchNorm buffer has the same bytes afterwards."""
    before = _state_bytes(subject.backbone)
    probe = {"mode": mode, "epochs": 1, "milestones": [], "batch_size": 25}
    evaluate_linear(subject, _linear_config(knn_config, protocol=protocol, probe=probe), workspace)
    assert _state_bytes(subject.backbone) == before
