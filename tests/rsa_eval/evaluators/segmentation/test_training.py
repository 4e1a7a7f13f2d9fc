"""The linear layer's loss and steps."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsa_eval.evaluators.segmentation import training
from rsa_eval.evaluators.segmentation.settings import DenseProbeConfig
from rsa_eval.evaluators.segmentation.training import DenseProbe, pixel_loss
from rsa_eval.evaluators.shared.resumable import StateFile
from rsa_pretrain.plumbing.errors import UserError


def new_probe(path: Path, **settings: object) -> DenseProbe:
    """A probe of six channels and three classes."""
    config = DenseProbeConfig(**settings)  # type: ignore[arg-type]
    return DenseProbe(6, 3, config, 0, StateFile(path, "same"), torch.device("cpu"))


def random_batch(num_images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Maps (n, 6, 4, 4), and masks (n, 16, 16) of which a part is ignored."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(num_images, 6, 4, 4, generator=generator)
    masks = torch.randint(3, (num_images, 16, 16), generator=generator).to(torch.uint8)
    masks[:, :3] = 255
    return maps, masks


def test_the_loss_of_one_place_by_hand() -> None:
    """Logits 0 and ln 3 give each pixel a chance of 1/4 and 3/4; one of four is ignored."""
    logits = torch.tensor([0.0, math.log(3.0)]).reshape(1, 2, 1, 1)
    masks = torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8)
    expected = -math.log(1 / 4) - 2 * math.log(3 / 4)
    assert float(pixel_loss(logits, masks)) == pytest.approx(expected)


def test_ignored_pixels_give_no_gradient() -> None:
    """Where all around is ignored, a place of the map has gradient 0, and elsewhere it has one.

    A place reaches 1.5 times its own side, so the first two rows of places reach pixel rows 0 to 9.
    """
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    masks = torch.ones(1, 16, 16, dtype=torch.uint8)
    masks[:, :10] = 255
    pixel_loss(logits, masks).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[:, :, :2].eq(0).all()
    assert logits.grad[:, :, 2:].ne(0).all()


def test_a_step_is_torchs_own(tmp_path: Path) -> None:
    """Mean cross-entropy over the pixels that count, and SGD with momentum and decay.

    Three steps, the last after the milestone, against torch's loss and optimizer.
    """
    settings = {"epochs": 2, "milestones": (1,), "lr": 0.5, "gamma": 0.1}
    probe = new_probe(tmp_path / "state.pt", **settings)
    other = torch.nn.Conv2d(6, 3, 1)
    other.load_state_dict(probe.head.state_dict())
    optimizer = torch.optim.SGD(other.parameters(), 0.5, momentum=0.9, weight_decay=1e-4)
    for number, epoch in enumerate((0, 0, 1)):
        maps, masks = random_batch(5, number)
        probe.train_step(maps, masks, epoch)
        optimizer.param_groups[0]["lr"] = 0.5 * 0.1**epoch
        optimizer.zero_grad()
        enlarged = F.interpolate(other(maps), (16, 16), mode="bilinear", align_corners=False)
        F.cross_entropy(enlarged, masks.long(), ignore_index=255).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch.testing.assert_close(probe.head.weight, other.weight)
        torch.testing.assert_close(probe.head.bias, other.bias)
    assert probe.step == 3


def test_parts_of_a_batch_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of a few images at a time take less memory and give the same step."""
    whole, parts = (new_probe(tmp_path / f"{name}.pt") for name in "ab")
    maps, masks = random_batch(5)
    whole.train_step(maps, masks, 0)
    monkeypatch.setattr(training, "_LOGIT_BYTES_AT_ONCE", 2 * 4 * 3 * 16 * 16)
    parts.train_step(maps, masks, 0)
    torch.testing.assert_close(parts.head.weight, whole.head.weight)
    parts.end_epoch(0)
    whole.end_epoch(0)
    assert parts.losses == pytest.approx(whole.losses)


def test_a_step_without_a_class_moves_by_decay_alone(tmp_path: Path) -> None:
    """The mean of no pixel is no NaN; an epoch without any is refused."""
    probe = new_probe(tmp_path / "state.pt", weight_decay=0.0)
    before = probe.head.weight.detach().clone()
    maps, masks = random_batch(2)
    probe.train_step(maps, torch.full_like(masks, 255), 0)
    assert torch.equal(probe.head.weight, before)
    with pytest.raises(UserError, match="no pixel of the training masks has a class"):
        probe.end_epoch(0)


def test_the_loss_of_an_epoch_is_that_of_its_pixels(tmp_path: Path) -> None:
    """Over batches of different numbers of pixels, at the weights of each step."""
    probe = new_probe(tmp_path / "state.pt", lr=1e-12)
    total, count = 0.0, 0
    for seed, num_images in enumerate((3, 1)):
        maps, masks = random_batch(num_images, seed)
        total += float(pixel_loss(probe.head(maps), masks).detach())
        count += int((masks != 255).sum())
        probe.train_step(maps, masks, 0)
    probe.end_epoch(0)
    assert probe.losses == pytest.approx([total / count])


def test_a_diverging_loss_stops_with_advice(tmp_path: Path) -> None:
    """It names the rate."""
    probe = new_probe(tmp_path / "state.pt", lr=7.0)
    maps, masks = random_batch(2)
    probe.train_step(maps * torch.inf, masks, 3)
    with pytest.raises(UserError, match=r"diverged in epoch 3: .* nan; lower probe.lr \(now 7\)"):
        probe.end_epoch(3)


@pytest.mark.parametrize("where", ["loss", "weights"])
def test_a_diverged_state_is_not_saved(tmp_path: Path, where: str) -> None:
    """The former one stays: resuming what is no number could not end well."""
    path = tmp_path / "state.pt"
    probe = new_probe(path)
    maps, masks = random_batch(2)
    probe.train_step(maps, masks, 0)
    probe.save()
    before = path.read_bytes()
    if where == "loss":
        probe.train_step(maps * torch.inf, masks, 0)
    else:
        probe.head.weight.detach()[0, 0] = torch.nan
    with pytest.raises(UserError, match="the probe diverged before step"):
        probe.save()
    assert path.read_bytes() == before


def test_the_weights_start_as_published(tmp_path: Path) -> None:
    """From N(0, 0.01²), drawn by the seed alone, with biases of 0."""
    first, second = (new_probe(tmp_path / f"{name}.pt") for name in "ab")
    assert torch.equal(first.head.weight, second.head.weight)
    assert 0.005 < float(first.head.weight.detach().std()) < 0.02
    assert first.head.bias is not None
    assert first.head.bias.eq(0).all()
