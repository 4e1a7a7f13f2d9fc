"""The torchvision engine's arithmetic against plain Python (tests/reference/mask_rcnn.py)."""

import math
from typing import Any

import mask_rcnn
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_codec
from torch import nn

from detection.engines.torchvision.anchors import STRIDES, AnchorLayout
from detection.engines.torchvision.initialisation import initialise
from detection.engines.torchvision.losses import box_losses, mask_loss, proposal_losses
from detection.engines.torchvision.mask_pasting import paste_masks
from detection.engines.torchvision.mask_targets import mask_targets
from detection.engines.torchvision.pooling import PyramidPooler, box_levels
from detection.engines.torchvision.prediction import to_coco, to_original
from detection.engines.torchvision.proposals import ProposalNetwork
from detection.engines.torchvision.pyramid_heads import PyramidHeads
from detection.feeding.samples import Bitmap, TestSample, cut_out
from detection.recipe.architecture import (
    DEFAULT_ANCHORS,
    PRE_NMS_TOP_K,
    Anchors,
    BoxCounts,
    ModelConfig,
    SamplingConfig,
)

SHAPES = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]


def _random_boxes(count: int, size: tuple[int, int]) -> torch.Tensor:
    corners = torch.rand(count, 2, 2) * torch.tensor([size[1], size[0]])
    low, high = corners.amin(1), corners.amax(1) + 1
    return torch.cat([low, high], dim=1)


def _heads(num_classes: int = 3) -> PyramidHeads:
    model = ModelConfig(box_head_num_convs=1, mask_head_num_convs=1)
    return PyramidHeads(16, num_classes, model, SamplingConfig(detections_per_image=7), None)


def test_anchors() -> None:
    """Sizes, shapes, strides and order are those of the formula, to float32."""
    levels = AnchorLayout(DEFAULT_ANCHORS, "FPN")(SHAPES)
    for level, found in enumerate(levels):
        expected = torch.tensor(mask_rcnn.anchors(level, *SHAPES[level]))
        torch.testing.assert_close(found, expected)
    assert (STRIDES["FPN"], DEFAULT_ANCHORS) == (
        mask_rcnn.STRIDES,
        (mask_rcnn.SIZES, mask_rcnn.RATIOS),
    )


def test_anchors_of_other_sizes_and_shapes_by_hand() -> None:
    """A side of 8 and ratio 4 is 4 wide and 16 high; each cell has them in the order given."""
    anchors = Anchors((8, 16, 32, 64, 128), (4, 1))
    levels = AnchorLayout(anchors, "FPN")(SHAPES)
    assert [len(level) for level in levels] == [2 * height * width for height, width in SHAPES]
    assert levels[0][:3].tolist() == [[-2, -8, 2, 8], [-4, -4, 4, 4], [2, -8, 6, 8]]
    assert levels[4].tolist() == [
        [-32, -128, 32, 128],
        [-64, -64, 64, 64],
        [32, -128, 96, 128],
        [0, -64, 128, 64],
    ]


def test_latest_anchors_are_kept_in_training() -> None:
    """The same tensors for the same sizes, equal to new ones; the oldest of 17 sizes is dropped."""
    layout = AnchorLayout(DEFAULT_ANCHORS, "FPN").train()
    first = layout(SHAPES)
    fresh = AnchorLayout(DEFAULT_ANCHORS, "FPN").eval()(SHAPES)
    assert all(torch.equal(kept, new) for kept, new in zip(layout(SHAPES), fresh, strict=True))
    others = [[(height + extra, width) for height, width in SHAPES] for extra in range(1, 17)]
    for shapes in others[:15]:
        layout(shapes)
    assert layout(SHAPES) is first
    assert layout(others[0])[0].shape[0] == 17 * 24 * 3
    assert layout(others[15]) is layout(others[15])
    assert layout(SHAPES) is not first
    assert len(layout._kept) == 16
    kept = layout(SHAPES)
    assert layout.eval()(SHAPES) is not kept
    assert layout.train()(SHAPES) is kept


def test_box_levels() -> None:
    """A side of 224 is read from stride 16, half of it from 8; a box without area from 4."""
    boxes = _random_boxes(60, (900, 1300))
    assert box_levels(boxes).tolist() == [mask_rcnn.level_of(box) for box in boxes.tolist()]
    sides = torch.tensor([0.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 5000.0])
    squares = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert box_levels(squares).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_pooled_features() -> None:
    """Every box is cut from its own image and level, at the sampled positions."""
    torch.manual_seed(3)
    maps = [torch.randn(2, 1, height * 8, width * 8) for height, width in SHAPES[:4]]
    boxes = [_random_boxes(4, (512, 768)), _random_boxes(3, (100, 150))]
    found = PyramidPooler(3)(maps, boxes)[:, 0]
    levels = []
    position = 0
    for image, image_boxes in enumerate(boxes):
        for box in image_boxes.tolist():
            level = mask_rcnn.level_of(box)
            levels.append(level)
            rows = maps[level][image, 0].tolist()
            expected = torch.tensor(mask_rcnn.roi_align(rows, box, STRIDES["FPN"][level], 3))
            torch.testing.assert_close(found[position], expected, rtol=1e-4, atol=1e-4)
            position += 1
    assert len(set(levels)) > 1


def test_pooling_together_is_pooling_alone() -> None:
    """Every box has bitwise the values, and the gradient, of a separate call."""
    torch.manual_seed(9)
    maps = [torch.randn(2, 3, h * 8, w * 8, requires_grad=True) for h, w in SHAPES[:4]]
    boxes = [_random_boxes(6, (512, 768)), _random_boxes(5, (100, 150))]
    assert (box_levels(torch.cat(boxes)).diff() < 0).any(), "the order of levels is another"
    pool = PyramidPooler(3)
    together = pool(maps, boxes)
    alone = torch.cat(
        [
            pool([part[image : image + 1] for part in maps], [box[None]])
            for image in range(2)
            for box in boxes[image]
        ]
    )
    assert torch.equal(together, alone)
    weights = torch.randn_like(together)
    for found, expected in zip(
        torch.autograd.grad((together * weights).sum(), maps),
        torch.autograd.grad((alone * weights).sum(), maps),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_losses() -> None:
    """Sums, normalisation and the choice of the own class are the formulas'."""
    torch.manual_seed(4)
    logits, deltas, targets = torch.randn(9), torch.randn(9, 4), torch.randn(9, 4)
    labels = torch.tensor([1, 0, 1, 0, 0, 0, 1, 0, 0])
    found = proposal_losses(logits, deltas, labels, targets, 16)
    rows = zip(*(part.tolist() for part in (logits, labels == 1, deltas, targets)), strict=True)
    expected = mask_rcnn.proposal_losses(list(rows), 16)
    assert [float(value) for value in found.values()] == pytest.approx(expected, rel=1e-5)

    logits, deltas = torch.randn(6, 4), torch.randn(6, 16)
    labels = torch.tensor([0, 3, 1, 0, 2, 3])
    found = box_losses(logits, deltas, labels, targets[:6])
    by_class = deltas.reshape(6, 4, 4)
    rows = zip(*(part.tolist() for part in (logits, labels, by_class, targets[:6])), strict=True)
    expected = mask_rcnn.box_losses(list(rows))
    assert [float(value) for value in found.values()] == pytest.approx(expected, rel=1e-5)

    masks, wanted = torch.randn(3, 4, 5, 5), torch.rand(3, 5, 5) > 0.5
    labels = torch.tensor([2, 1, 3])
    rows = zip(*(part.tolist() for part in (masks, labels, wanted)), strict=True)
    expected = mask_rcnn.mask_loss(list(rows))
    assert float(mask_loss(masks, labels, wanted)) == pytest.approx(expected, rel=1e-5)


def test_losses_without_objects_keep_the_graph() -> None:
    """Background alone gives zero, and a gradient of zero, to boxes and masks; so does nothing."""
    deltas, masks = (
        torch.randn(4, 8, requires_grad=True),
        torch.randn(0, 2, 3, 3, requires_grad=True),
    )
    background = torch.zeros(4, dtype=torch.long)
    losses = box_losses(torch.randn(4, 2), deltas, background, torch.zeros(4, 4))
    nothing = torch.zeros(0, dtype=torch.long)
    total = losses["loss_box_reg"] + mask_loss(masks, nothing, torch.zeros(0, 3, 3))
    assert total == 0
    total.backward()  # type: ignore[no-untyped-call]
    assert deltas.grad is not None
    assert deltas.grad.abs().max() == 0
    assert masks.grad is not None
    logits = torch.randn(0, 2, requires_grad=True)
    losses = box_losses(logits, torch.zeros(0, 8), nothing, torch.zeros(0, 4))
    assert [float(loss) for loss in losses.values()] == [0, 0]
    losses["loss_cls"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None


def test_image_without_objects_and_proposals_has_losses() -> None:
    """Where nothing is proposed either, every loss is 0 and every parameter in its graph."""
    heads = _heads().train()
    features = {str(level): torch.randn(1, 16, 32 >> level, 32 >> level) for level in range(4)}
    nothing = torch.zeros(0, 4)
    target = {"boxes": nothing, "labels": torch.zeros(0, dtype=torch.long), "outlines": ()}
    _, losses = heads(features, [nothing], [(128, 128)], [target])
    assert {name: float(loss) for name, loss in losses.items()} == {
        "loss_cls": 0,
        "loss_box_reg": 0,
        "loss_mask": 0,
    }
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert not [name for name, part in heads.named_parameters() if part.grad is None]


@pytest.mark.parametrize("pre_nms", [1000, 30])
def test_proposals(monkeypatch: pytest.MonkeyPatch, pre_nms: int) -> None:
    """The best of each level, thinned within it, then the best of the image, clipped to it."""
    monkeypatch.setitem(PRE_NMS_TOP_K, "FPN", BoxCounts(2000, pre_nms))
    torch.manual_seed(5)
    network = ProposalNetwork(8, ModelConfig(), SamplingConfig(proposals_per_image=40)).eval()
    size = (60, 90)
    anchors = AnchorLayout(DEFAULT_ANCHORS, "FPN")(SHAPES)
    logits = [torch.randn(1, len(part)) for part in anchors]
    deltas = [torch.randn(1, len(part), 4) * 0.4 for part in anchors]
    (found,) = network._select(logits, deltas, anchors, [size])
    levels = [
        list(zip(logit[0].tolist(), move[0].tolist(), boxes.tolist(), strict=True))
        for logit, move, boxes in zip(logits, deltas, anchors, strict=True)
    ]
    expected = mask_rcnn.proposals(levels, size, pre_nms, 40)
    assert len(found) == len(expected) == 40
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_proposals_that_are_no_boxes_are_left_out() -> None:
    """Infinite or empty boxes do not reach non-maximum suppression."""
    network = ProposalNetwork(8, ModelConfig(), SamplingConfig()).eval()
    boxes = torch.tensor(
        [[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, float("nan"), 8.0], [50.0, 0.0, 60.0, 9.0]]
    )
    kept = network._thin(boxes, torch.ones(3), torch.zeros(3, dtype=torch.long), (20, 20))
    assert kept.tolist() == [[0.0, 0.0, 8.0, 8.0]]


def test_detections() -> None:
    """Scores, boxes by class, suppression within a class and the number kept are the formula's."""
    torch.manual_seed(6)
    heads, size = _heads(), (70, 90)
    boxes = _random_boxes(30, size)
    logits, deltas = torch.randn(30, 4) * 2, torch.randn(30, 16)
    found = heads._detect(logits, deltas, boxes, size)
    moves = deltas.reshape(30, 4, 4)
    regions = zip(logits.tolist(), moves.tolist(), boxes.tolist(), strict=True)
    expected = mask_rcnn.detections(list(regions), size, 7)
    assert found["labels"].tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(found["scores"], torch.tensor([score for score, _, _ in expected]))
    torch.testing.assert_close(found["boxes"], torch.tensor([box for _, _, box in expected]))
    assert len(set(found["labels"].tolist())) > 1


def test_masks_are_those_of_the_own_class() -> None:
    """Bitwise what every class's probabilities hold for the class found, image by image."""
    torch.manual_seed(10)
    heads, size = _heads(num_classes=5).eval(), (128, 160)
    maps = {str(level): torch.randn(2, 16, 32 >> level, 40 >> level) for level in range(4)}
    proposals = [_random_boxes(12, size), _random_boxes(9, size)]
    with torch.no_grad():
        found, _ = heads(maps, proposals, [size] * 2)
        logits = heads._predict_masks(list(maps.values()), [part["boxes"] for part in found])
    masks, labels = (torch.cat([part[key] for part in found]) for key in ("masks", "labels"))
    assert len(labels.unique()) > 2
    for mask, label, every in zip(masks, labels, logits.sigmoid(), strict=True):
        assert torch.equal(mask, every[label])


def test_regions_are_sampled_by_overlap() -> None:
    """A quarter are objects, labelled by the one they overlap most; the rest is background."""
    heads = PyramidHeads(16, 3, ModelConfig(), SamplingConfig(rois_per_image=8), None)
    target = {
        "boxes": torch.tensor([[0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 60.0, 60.0]]),
        "labels": torch.tensor([3, 1]),
    }
    near = torch.tensor([[0.0, 0.0, 20.0, 19.0], [41.0, 40.0, 60.0, 60.0], [0.0, 0.0, 20.0, 18.0]])
    far = _random_boxes(20, (20, 20)) + 70
    sample = heads._sample(torch.cat([near, far]), target)
    assert len(sample.boxes) == 8
    objects = sample.labels > 0
    assert objects.sum() == 2
    assert torch.equal(sample.labels[objects], target["labels"][sample.matches[objects]])
    overlaps = (sample.boxes[objects] - target["boxes"][sample.matches[objects]]).abs()
    assert overlaps.max() <= 2
    assert sample.boxes[~objects].min() >= 70


def test_own_boxes_are_candidates() -> None:
    """Without any proposal near it, an object is still trained on, by its own box."""
    heads = PyramidHeads(16, 3, ModelConfig(), SamplingConfig(rois_per_image=8), None)
    target = {"boxes": torch.tensor([[0.0, 0.0, 20.0, 20.0]]), "labels": torch.tensor([2])}
    sample = heads._sample(torch.tensor([[60.0, 60.0, 70.0, 70.0]]), target)
    assert sample.labels.tolist() == [0, 2]


def test_mask_targets_by_hand() -> None:
    """A rectangle is drawn in its region's frame; both forms of an outline agree on it.

    So do a whole bitmap and its part with the object.
    """
    rectangle = np.array([[10.0, 20.0], [24.0, 20.0], [24.0, 48.0], [10.0, 48.0]])
    whole = np.zeros((60, 60), dtype=np.uint8)
    whole[20:48, 10:24] = 1
    bitmaps = Bitmap(whole, 0, 0), Bitmap(whole[19:49, 9:25], left=9, top=19)
    boxes = torch.tensor(
        [[10.0, 20.0, 38.0, 48.0], [24.0, 20.0, 31.0, 34.0], [3.0, 6.0, 17.0, 34.0]]
    )
    expected = torch.zeros(3, 28, 28, dtype=torch.bool)
    expected[0, :, :14] = True
    expected[2, 14:, 14:] = True
    for outline in ((rectangle,), *bitmaps):
        assert torch.equal(mask_targets([outline] * 3, boxes, 28), expected)
    assert mask_targets([], boxes[:0], 28).shape == (0, 28, 28)


def test_part_of_a_bitmap_is_read_as_the_whole() -> None:
    """Regions inside, across and beyond the object, also at the image's border: equal targets."""
    generator = np.random.default_rng(3)
    for corner in ((0, 0), (13, 21), (40, 32)):
        whole = np.zeros((60, 52), dtype=np.uint8)
        row, column = corner
        whole[row : row + 20, column : column + 20] = generator.integers(0, 2, (20, 20))
        top_left = generator.uniform(-4, 45, (60, 2))
        sides = generator.uniform(0.5, 40, (60, 2))
        boxes = torch.from_numpy(np.hstack([top_left, top_left + sides]).astype(np.float32))
        part = cut_out(whole)
        assert part.pixels.size < whole.size / 3
        found, expected = (
            mask_targets([bitmap] * len(boxes), boxes, 28) for bitmap in (part, Bitmap(whole, 0, 0))
        )
        assert expected.any()
        assert torch.equal(found, expected)


def test_mask_target_of_parts_and_thin_regions() -> None:
    """All parts of an object are drawn; a region without height is drawn without failing."""
    parts = tuple(np.array([[x, 0.0], [x + 7, 0.0], [x + 7, 28.0], [x, 28.0]]) for x in (0.0, 21.0))
    boxes = torch.tensor([[0.0, 0.0, 28.0, 28.0], [0.0, 5.0, 28.0, 5.0]])
    whole, thin = mask_targets([parts] * 2, boxes, 28)
    assert whole.sum(dim=0).tolist() == [28] * 7 + [0] * 14 + [28] * 7
    assert thin.sum(dim=0).bool().tolist() == [True] * 7 + [False] * 14 + [True] * 7


def test_pasted_masks() -> None:
    """Inside, across the whole image, in its corner, and smaller than a pixel."""
    torch.manual_seed(7)
    masks = torch.rand(4, 5, 5)
    inside, whole = [3.2, 4.1, 17.7, 12.9], [0.0, 0.0, 24.0, 18.0]
    corner, tiny = [20.5, 10.0, 24.0, 18.0], [5.3, 5.2, 5.7, 5.6]
    boxes = torch.tensor([inside, whole, corner, tiny])
    found = paste_masks(masks, boxes, (18, 24))
    for mask, box, pixels in zip(masks.tolist(), boxes.tolist(), found.tolist(), strict=True):
        assert pixels == mask_rcnn.paste(mask, box, (18, 24))
    assert found[0].any()


def test_pasted_masks_are_encoded_where_they_lie() -> None:
    """Nothing is copied for pycocotools; each code is that of the mask alone."""
    torch.manual_seed(11)
    size = (18, 24)
    found = {
        "boxes": _random_boxes(3, size),
        "labels": torch.tensor([1, 1, 1]),
        "scores": torch.rand(3),
        "masks": torch.rand(3, 28, 28),
    }
    _, masks = to_original(found, size, size)
    assert masks is not None
    assert masks.flatten(1).any(1).all()
    assert masks.permute(1, 2, 0).numpy().flags.f_contiguous
    sample = TestSample(torch.zeros(3, *size, dtype=torch.uint8), 1, *size)
    for mask, entry in zip(masks, to_coco(found, sample, [1]), strict=True):
        alone = mask_codec.encode(np.asfortranarray(mask.byte().numpy()))
        assert entry["segmentation"] == {"size": [*size], "counts": alone["counts"].decode()}


def test_detections_return_to_the_original_image() -> None:
    """Boxes are scaled by side, cut at the image, and dropped if nothing of them is left."""
    found = {
        "boxes": torch.tensor([[10.0, 10.0, 20.0, 30.0], [40.0, 5.0, 40.0, 9.0]]),
        "labels": torch.tensor([2, 1]),
        "scores": torch.tensor([0.9, 0.8]),
        "masks": torch.ones(2, 28, 28),
    }
    kept, masks = to_original(found, (40, 40), (80, 20))
    assert kept["boxes"].tolist() == [[5.0, 20.0, 10.0, 60.0]]
    assert (kept["labels"].tolist(), masks.shape) == ([2], (1, 80, 20))
    assert masks[0, 20:60, 5:10].all()
    assert masks.sum() == 40 * 5


def test_initialisation() -> None:
    """detectron2's deviations; what only the background has is 0."""
    torch.manual_seed(8)
    model = ModelConfig(box_head_num_convs=2, box_head_num_fcs=2, mask_head_num_convs=1)
    heads = PyramidHeads(64, 40, model, SamplingConfig(), None)
    initialise(heads)
    linear = [layer for layer in heads.box_head.modules() if isinstance(layer, nn.Linear)]
    convs = [layer for layer in heads.box_head.modules() if isinstance(layer, nn.Conv2d)]
    expected = [
        *((layer.weight, 1 / math.sqrt(layer.in_features)) for layer in linear),
        *((layer.weight, math.sqrt(2 / (9 * 64))) for layer in convs),
        (heads.box_predictor.cls_score.weight, 0.01),
        (heads.box_predictor.bbox_pred.weight[4:], 0.001),
        (heads.mask_predictor.mask_fcn_logits.weight[1:], 0.001),
        (ProposalNetwork(64, ModelConfig(), SamplingConfig()).head.conv[0][0].weight, 0.01),
    ]
    for weight, std in expected:
        assert float(weight.std()) == pytest.approx(std, rel=0.05)
        assert abs(float(weight.mean())) < 0.1 * std
    uniform = linear[0].weight
    assert float(uniform.abs().max()) <= math.sqrt(3 / linear[0].in_features)
    assert heads.box_predictor.bbox_pred.weight[:4].abs().max() == 0
    assert heads.mask_predictor.mask_fcn_logits.weight[0].abs().max() == 0
    biases = [part for name, part in heads.named_parameters() if name.endswith("bias")]
    assert all(bias.abs().max() == 0 for bias in biases)


def test_background_rows_receive_no_gradient() -> None:
    """Unread rows stay at zero in training: their gradient is 0."""
    deltas = torch.randn(5, 16, requires_grad=True)
    masks = torch.randn(2, 4, 3, 3, requires_grad=True)
    labels = torch.tensor([0, 3, 0, 1, 0])
    losses: Any = box_losses(torch.randn(5, 4), deltas, labels, torch.randn(5, 4))
    total = losses["loss_box_reg"] + mask_loss(masks, labels[labels > 0], torch.zeros(2, 3, 3))
    total.backward()
    assert deltas.grad is not None
    assert masks.grad is not None
    assert deltas.grad[:, :4].abs().max() == masks.grad[:, 0].abs().max() == 0
    assert deltas.grad.abs().max() > 0
