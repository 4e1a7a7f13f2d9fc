"""Detectors on C4 in the torchvision engine; ``test_engines_agree`` compares with detectron2."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mask_rcnn
import numpy as np
import pytest
import torch

from detection.__main__ import main
from detection.engines.torchvision import trainer
from detection.engines.torchvision.anchors import AnchorLayout
from detection.engines.torchvision.detector import MaskRCNN, build_detector, check_trunk
from detection.engines.torchvision.loading import load_detector
from detection.engines.torchvision.pooling import pool_map
from detection.engines.torchvision.proposals import ProposalNetwork
from detection.engines.torchvision.stage_heads import StageHeads
from detection.exchange.trained import read_trained
from detection.exchange.whole_detector import exchange
from detection.feeding.samples import TestSample, TrainingSample
from detection.job.trunk import Trunk, load_trunk
from detection.recipe.architecture import DEFAULT_ANCHORS, ModelConfig, SamplingConfig
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_checkpoint, save_tensors

MakeRecipe = Callable[..., Recipe]
pytestmark = pytest.mark.usefixtures("narrow_detector")
SIZE = (70, 90)


@pytest.fixture
def make_c4(make_recipe: MakeRecipe, c4: dict[str, Any]) -> MakeRecipe:
    """Return the small recipe on C4, with changes of its model and others."""

    def make(model: dict[str, Any] | None = None, **changes: Any) -> Recipe:
        return make_recipe(model={**c4, **(model or {})}, **changes)

    return make


@pytest.fixture
def trunk(write_checkpoint: Callable[..., LoadedBackbone], make_c4: MakeRecipe) -> Trunk:
    """The ResNet-18 checkpoint as a trunk."""
    return load_trunk(write_checkpoint().path, make_c4().model)


def _batch() -> list[TrainingSample]:
    square = np.array([8, 8, 40, 8, 40, 40, 8, 40], dtype=np.float64).reshape(-1, 2)
    return [
        TrainingSample(
            image=torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8),
            boxes=np.array([[8, 8, 40, 40]], dtype=np.float32),
            labels=np.array([1]),
            outlines=((square,),),
        )
        for _ in range(2)
    ]


def _loss(detector: MaskRCNN) -> torch.Tensor:
    losses: Any = detector.train()(_batch())
    return torch.stack(list(losses.values())).sum()


def test_all_sizes_lie_on_one_map() -> None:
    """At each position of stride 16: size by size, and each size shape by shape."""
    (found,) = AnchorLayout(DEFAULT_ANCHORS, "C4")([(2, 3)])
    expected = [
        (16 * column - w / 2, 16 * row - h / 2, 16 * column + w / 2, 16 * row + h / 2)
        for row in range(2)
        for column in range(3)
        for size in mask_rcnn.SIZES
        for w, h in ((size / ratio**0.5, size * ratio**0.5) for ratio in mask_rcnn.RATIOS)
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_pooling_is_the_formula_s() -> None:
    """Each box is cut from the one map, in its own image, as RoIAlign's formula says."""
    torch.manual_seed(0)
    maps = torch.randn(2, 1, 5, 6)
    boxes = [torch.tensor([[3.0, 5.0, 61.0, 70.0]]), torch.tensor([[0.0, 0.0, 9.0, 33.0]])]
    found = pool_map(maps, boxes, 3)[:, 0]
    for image, part in enumerate(boxes):
        expected = mask_rcnn.roi_align(maps[image, 0].tolist(), part[0].tolist(), 16, 3)
        torch.testing.assert_close(found[image], torch.tensor(expected))


@pytest.mark.parametrize("training", [True, False])
def test_numbers_of_proposals(c4: dict[str, Any], training: bool) -> None:
    """Of 27,000 boxes 12,000 are thinned in training and 6,000 in testing; a recipe keeps fewer."""
    sampling = SamplingConfig(proposals_per_image=4, train_proposals_per_image=9)
    network = ProposalNetwork(8, ModelConfig(**c4), sampling).train(training)
    thinned = []

    def suppress(boxes: torch.Tensor, *rest: Any) -> torch.Tensor:
        thinned.append(len(boxes))
        return torch.arange(rest[-1])

    network.suppress = suppress
    torch.manual_seed(0)
    images: Any = type("Images", (), {"image_sizes": [(10**6, 10**6)]})
    target = [{"boxes": torch.tensor([[0.0, 0.0, 100.0, 100.0]])}] if training else None
    # Far from the border, so that no box is clipped to nothing.
    network.anchors.cells += 10**5
    (kept,), _ = network(images, {"0": torch.randn(1, 8, 30, 60)}, target)
    assert (thinned, len(kept)) == (([12_000], 9) if training else ([6000], 4))


def test_trunk_arrives_in_both_places(trunk: Trunk, make_c4: MakeRecipe) -> None:
    """res2 … res4 are the backbone's and res5 the heads', bitwise; a change of either shows."""
    detector = build_detector(make_c4(), trunk, 3)
    check_trunk(detector, trunk)
    assert isinstance(detector.roi_heads, StageHeads)
    assert not [name for name in detector.backbone.state_dict() if "layer4" in name]
    for place in ("backbone.body.layer2.0.bn1.weight", "roi_heads.layer4.0.conv1.weight"):
        with torch.no_grad():
            detector.get_parameter(place).view(-1)[0] += 1
        name = place.removeprefix("backbone.body.").removeprefix("roi_heads.")
        with pytest.raises(RuntimeError, match=rf"not loaded: .*{name}"):
            check_trunk(detector, trunk)


def test_region_features_are_the_last_stage_s(trunk: Trunk, make_c4: MakeRecipe) -> None:
    """Without the extra norm, a region's vector is the backbone's layer4 of its crop, averaged."""
    detector = build_detector(make_c4({"head_norm": "none"}), trunk, 3).eval()
    heads: Any = detector.roi_heads
    maps = [torch.rand(1, detector.rpn.head.cls_logits.in_channels, 6, 6)]
    boxes = [torch.tensor([[4.0, 8.0, 60.0, 50.0]])]
    features = heads.box_features(maps, boxes)
    assert torch.equal(features, heads.layer4(pool_map(maps[0], boxes, 14)))
    assert features.shape[2:] == (7, 7)
    assert torch.equal(heads.box_vectors(features), features.flatten(2).mean(2))
    assert heads._predict_masks(maps, boxes).shape == (1, 4, 14, 14)


def test_classes_and_masks_share_their_features(trunk: Trunk, make_c4: MakeRecipe) -> None:
    """In training res5 runs once per step, so its norms see each region once."""
    detector = build_detector(make_c4(), trunk, 3).train()
    heads: Any = detector.roi_heads
    calls = []
    heads.layer4.register_forward_hook(lambda *_: calls.append(1))
    _loss(detector).backward()  # type: ignore[no-untyped-call]
    assert len(calls) == 1
    assert not [name for name, part in detector.named_parameters() if part.grad is None]


@pytest.mark.parametrize(("norm", "frozen"), [("BN", True), ("FrozenBN", False)])
def test_frozen_trunk(trunk: Trunk, make_c4: MakeRecipe, norm: str, frozen: bool) -> None:
    """freeze_at 4 fixes all before the regions while res5 trains; FrozenBN fixes every norm."""
    model = {"freeze_at": 4} if frozen else {"trunk_norm": norm, "head_norm": "none"}
    detector = build_detector(make_c4(model), trunk, 3)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    _loss(detector).backward()  # type: ignore[no-untyped-call]
    with_gradient = {n for n, part in detector.named_parameters() if part.grad is not None}
    assert any(name.startswith("backbone.body.") for name in with_gradient) is not frozen
    assert "roi_heads.layer4.0.conv1.weight" in with_gradient
    changed = {n for n, part in detector.state_dict().items() if not torch.equal(part, before[n])}
    assert not [name for name in changed if name.startswith("backbone.body.")]
    assert bool([n for n in changed if n.startswith("roi_heads.layer4.")]) is frozen


def test_images_are_not_padded_to_a_multiple(trunk: Trunk, make_c4: MakeRecipe) -> None:
    """A single map needs no multiple of 32, which would change the features at the border."""
    detector = build_detector(make_c4(), trunk, 3)
    assert detector.padded_size([(33, 70), (40, 65)]) == (40, 70)


@pytest.mark.full_width
def test_file_restores_the_detector(
    make_c4: MakeRecipe,
    write_checkpoint: Callable[..., LoadedBackbone],
    tmp_path: Path,
) -> None:
    """The engine's file to detectron2's and back: the same architecture and detections."""
    loaded = write_checkpoint("resnet50")
    recipe = make_c4({"arch": "resnet50", "freeze_at": 2})
    detector = build_detector(recipe, load_trunk(loaded.path, recipe.model), 3).eval()
    with torch.no_grad():
        detector.roi_heads.box_predictor.cls_score.weight.mul_(30)
    metadata = loaded.metadata.model_copy(update={"method": "mask_rcnn"})
    source = tmp_path / "model.safetensors"
    save_tensors(source, detector.state_dict(), metadata)
    found = read_trained(source).card
    assert (found.model.features, found.model.head_norm) == ("C4", "BN")
    there = exchange(source, tmp_path / "there.pth")
    assert there.config is not None
    back = exchange(there.weights, tmp_path / "back.safetensors")
    sample = TestSample(torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8), 0, *SIZE)
    with torch.no_grad():
        first, second = (
            one([sample], 0.01)[0] for one in (detector, load_detector(back.weights).detector)
        )
    assert len(first["boxes"]) > 0
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_stopped_and_resumed_run_equals_a_straight_one(
    trunk: Trunk, make_c4: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps, and two, SIGTERM, two more: the same tensors and predictions."""
    assert run_recipe(make_c4(output_dir=tmp_path / "straight"), trunk, resume=False)[0] == 0
    train_step = trainer._Trainer._train_step

    def train_step_and_signal(self: Any, samples: Any) -> Any:
        if self.state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(self, samples)

    halved = make_c4(output_dir=tmp_path / "halved")
    with monkeypatch.context() as patch:
        patch.setattr(trainer._Trainer, "_train_step", train_step_and_signal)
        assert run_recipe(halved, trunk, resume=False)[0] == 128 + signal.SIGTERM
    assert run_recipe(halved, trunk, resume=True)[0] == 0
    last = [tmp_path / name / "checkpoints" / "last" for name in ("straight", "halved")]
    (tensors, _, _), (resumed, _, _) = map(load_checkpoint, last)
    assert tensors.keys() == resumed.keys()
    assert all(torch.equal(tensors[name], resumed[name]) for name in tensors)
    texts = [(tmp_path / n / "predictions.json").read_text() for n in ("straight", "halved")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("kind", "suffix"), [("torchscript", ".pt"), ("onnx", ".onnx")])
def test_exported_file_detects_the_same(
    trunk: Trunk,
    make_c4: MakeRecipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    suffix: str,
) -> None:
    """A run's exported graph is compared with the detector on three images when it is written."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    recipe = make_c4(solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0})
    run_recipe(recipe, trunk, resume=False)
    out = tmp_path / f"detector{suffix}"
    assert main(["export", str(recipe.output_dir), str(out), "--to", kind]) == 0
    written = capsys.readouterr().out
    assert "proof" in written
    assert "masks (D, 14, 14)" in written
    assert out.is_file()


def test_detectron2_has_no_shallow_c4(
    trunk: Trunk,
    make_c4: MakeRecipe,
    write_checkpoint: Callable[..., LoadedBackbone],
    tmp_path: Path,
) -> None:
    """A detector whose res5 has basic blocks is not written for detectron2."""
    metadata = write_checkpoint().metadata.model_copy(update={"method": "mask_rcnn"})
    source, out = tmp_path / "model.safetensors", tmp_path / "there.pth"
    save_tensors(source, build_detector(make_c4(), trunk, 3).state_dict(), metadata)
    with pytest.raises(UserError, match="detectron2 has no C4 detector on resnet18"):
        exchange(source, out)
    assert not out.exists()


def test_detectors_that_no_recipe_has_are_refused(
    trunk: Trunk,
    make_c4: MakeRecipe,
    write_checkpoint: Callable[..., LoadedBackbone],
    tmp_path: Path,
) -> None:
    """A trained norm after a frozen res5, as others may build it, is an error of one line."""
    model = {"trunk_norm": "FrozenBN", "head_norm": "none"}
    tensors = build_detector(make_c4(model), trunk, 3).state_dict()
    width = len(tensors["roi_heads.layer4.0.bn1.weight"])
    norm = torch.nn.BatchNorm2d(width).state_dict()
    tensors |= {f"roi_heads.layer4_norm.{name}": tensor for name, tensor in norm.items()}
    metadata = write_checkpoint().metadata.model_copy(update={"method": "mask_rcnn"})
    source = tmp_path / "model.safetensors"
    save_tensors(source, tensors, metadata)
    with pytest.raises(UserError, match="head_norm is BN and trunk_norm FrozenBN"):
        read_trained(source)
