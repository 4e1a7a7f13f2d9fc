"""Compare the two engines on the same weights and images; skipped without detectron2."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detection.coco.sets import TrainingImage, open_coco
from detection.engines.torchvision.detector import MaskRCNN, build_detector
from detection.engines.torchvision.loading import load_detector
from detection.engines.torchvision.prediction import detect, to_original
from detection.engines.torchvision.run_state import parameter_groups
from detection.engines.torchvision.stage_heads import StageHeads
from detection.exchange.model_names import ModelKeyMap
from detection.exchange.model_weights import heads_of, to_torchvision_model
from detection.exchange.trained import read_trained
from detection.exchange.trunk_names import BATCH_COUNT, IN_ENGINE, features_of
from detection.exchange.whole_detector import exchange
from detection.feeding.samples import TestImages, TestSample, TrainingSample, make_sample, resized
from detection.job.job import Job, open_job
from detection.job.run_checkpoints import newest_checkpoint
from detection.job.trunk import load_trunk, random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.weights.checkpoint import LoadedBackbone, save_tensors

COCO = Path(os.environ.get("RSA_DATA", "")) / "coco_mini"
SHORT_SIDE, LONG_SIDE = 128, 213
MOST = 40
NUM_PHOTOS = 4
SMALL_ANCHORS = {
    "anchor_sizes_pixels": [8, 16, 32, 64, 128],
    "anchor_aspect_ratios": [0.25, 1, 4],
}
CLASS_STD, BOX_STD, MASK_STD = 0.3, 0.05, 0.3

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.real_data,
    pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set"),
]


class Pair(NamedTuple):
    """One detector, built twice."""

    job: Job
    ours: MaskRCNN
    theirs: Any


INFOMIN = {"box_head_num_convs": 2}
MOCO = {
    "head_norm": "none",
    "pyramid_norm": "SyncBN",
    "box_head_num_convs": 0,
    "box_head_num_fcs": 2,
}
C4 = {
    "features": "C4",
    "box_head_num_convs": 0,
    "box_head_num_fcs": 0,
    "mask_head_num_convs": 0,
}
DETECTORS = {
    "resnet18": ("resnet18", INFOMIN),
    "resnet50": ("resnet50", INFOMIN),
    "moco_fpn": ("resnet18", MOCO),
    "moco_c4": ("resnet50", C4),
}
VARIANTS = {
    "small_anchors": ("resnet18", INFOMIN | SMALL_ANCHORS),
    "c4_small_anchors": ("resnet50", C4 | SMALL_ANCHORS | {"head_norm": "none"}),
    "c4_boxes_only": ("resnet50", C4 | {"mask_head": False}),
    "c4_frozen": ("resnet50", C4 | {"freeze_at": 4}),
}
all_detectors = DETECTORS | VARIANTS
with_variants_too = pytest.mark.parametrize(
    "pair", all_detectors.values(), indirect=True, ids=all_detectors
)


@pytest.fixture(params=DETECTORS.values(), ids=DETECTORS)
def pair(
    request: pytest.FixtureRequest,
    write_checkpoint: Callable[..., LoadedBackbone],
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
) -> Iterator[Pair]:
    """Random weights with many detections, passed to detectron2 through a file and its reader."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.utils.events import EventStorage

    from detection.engines.detectron2.detector import build_detector as build_theirs
    from detection.engines.detectron2.detector import make_config

    arch, model = request.param
    loaded = write_checkpoint(arch)
    recipe = make_recipe(
        data=_coco(),
        input={
            "train_short_sides_pixels": [SHORT_SIDE],
            "test_short_side_pixels": SHORT_SIDE,
            "max_side_pixels": LONG_SIDE,
        },
        model={"arch": arch, **model},
        sampling={
            "rois_per_image": 48,
            "proposals_per_image": 300,
            # Of many, some scores are equal to rounding, and their order decides what is sampled.
            "train_proposals_per_image": 100,
            "detections_per_image": MOST,
        },
    )
    job = open_job(recipe, load_trunk(loaded.path, recipe.model))
    ours = build_detector(job.recipe, job.trunk, job.num_classes)
    tests = TestImages(job.test_set, job.recipe.input)
    _spread(ours, [tests[index].image for index in range(NUM_PHOTOS)])
    source = tmp_path / "ours.safetensors"
    metadata = loaded.metadata.model_copy(update={"method": "mask_rcnn"})
    save_tensors(source, ours.state_dict(), metadata)
    done = exchange(source, tmp_path / "theirs.pth")
    theirs = build_theirs(make_config(job), job.trunk)
    incompatible = DetectionCheckpointer(theirs)._load_model(
        {"model": torch.load(done.weights, weights_only=True)["model"]}
    )
    # Norms that detectron2 freezes after building them keep their batch count.
    missing = [name for name in incompatible.missing_keys if not name.endswith(BATCH_COUNT)]
    assert not missing
    assert not incompatible.unexpected_keys
    assert not incompatible.incorrect_shapes
    with EventStorage(0):
        yield Pair(job, ours, theirs)


def _coco() -> dict[str, str]:
    return {
        "train_annotations": str(COCO / "annotations/instances_train2017.json"),
        "train_images": str(COCO / "train2017"),
        "test_annotations": str(COCO / "annotations/instances_val2017.json"),
        "test_images": str(COCO / "val2017"),
    }


def _spread(detector: MaskRCNN, photos: list[Tensor]) -> None:
    """Give the norms the photos' statistics, and enlarge what initialisation keeps small."""
    norms = [part for part in detector.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        features = detector.train().backbone(detector.batched(photos).tensors)
        map_size = vector_size = 1.0
        if isinstance(detector.roi_heads, StageHeads):  # whose maps no layer has normalised
            (single,) = features.values()
            regions = detector.roi_heads.box_features([single], list(map(_grid, photos)))
            vectors = detector.roi_heads.box_vectors(regions)
            map_size, vector_size = 2 * _length(single), _length(vectors) / 7
    for norm in norms:
        norm.momentum = 0.1
    generator = torch.Generator().manual_seed(1)
    for name, tensor in detector.state_dict().items():
        if name.startswith("rpn.") and name.endswith("weight"):
            tensor.normal_(0, 0.02 / map_size, generator=generator)
        elif name.endswith("cls_score.weight"):
            tensor.normal_(0, CLASS_STD / vector_size, generator=generator)
        elif name.endswith("bbox_pred.weight"):
            tensor[4:].normal_(0, BOX_STD / vector_size, generator=generator)
        elif name.endswith("mask_fcn_logits.weight"):
            tensor[1:].normal_(0, MASK_STD, generator=generator)


def _length(vectors: Tensor) -> float:
    """Return the mean length of vectors along the second dimension."""
    return float(vectors.norm(dim=1).mean())


def _grid(photo: Tensor) -> Tensor:
    """Cover a photo with boxes of a third of its sides."""
    height, width = photo.shape[1:]
    corners = torch.cartesian_prod(torch.arange(3) * width / 3, torch.arange(3) * height / 3)
    return torch.cat([corners, corners + torch.tensor([width / 3, height / 3])], dim=1)


def _photos(job: Job) -> list[TrainingImage]:
    """Two wide images and two others, each annotated by polygons alone."""
    drawn = [
        image
        for image in job.train_images
        if all(isinstance(entry["segmentation"], list) for entry in image.annotations)
    ]
    wide = [image for image in drawn if image.is_wide]
    return [*wide[:2], *(image for image in drawn if not image.is_wide)][:4]


def _theirs_of(sample: TrainingSample) -> dict[str, Any]:
    from detectron2.structures import Boxes, Instances, PolygonMasks

    instances = Instances(sample.image.shape[1:])
    instances.gt_boxes = Boxes(torch.from_numpy(sample.boxes))
    instances.gt_classes = torch.from_numpy(sample.labels) - 1
    if sample.outlines:  # its mapper gives none to an image without objects
        instances.gt_masks = PolygonMasks([[part.ravel() for part in o] for o in sample.outlines])
    return {"image": sample.image, "instances": instances}


def _batches(job: Job) -> list[list[TrainingSample]]:
    samples = [
        make_sample(image, SHORT_SIDE, LONG_SIDE, flip=index % 2 == 1)
        for index, image in enumerate(_photos(job))
    ]
    return [samples[:2], samples[2:]]


def _losses(pair: Pair, batch: list[TrainingSample]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses of both, each from the same random state."""
    torch.manual_seed(5)
    ours: Any = pair.ours(batch)
    torch.manual_seed(5)
    theirs = pair.theirs([_theirs_of(sample) for sample in batch])
    return ours, theirs


@with_variants_too
def test_same_detections(pair: Pair) -> None:
    """Boxes overlap by 0.999 and more, scores differ by less than 1e-4, masks are the same."""
    pair.ours.eval()
    pair.theirs.eval()
    tests = TestImages(pair.job.test_set, pair.job.recipe.input)
    shapes, num_found = set(), 0
    for index in range(NUM_PHOTOS):
        sample = tests[index]
        assert isinstance(sample, TestSample)
        shapes.add(tuple(sample.image.shape))
        size = (sample.height, sample.width)
        with torch.no_grad():
            (found,) = pair.ours([sample])
            (result,) = pair.theirs([{"image": sample.image, "height": size[0], "width": size[1]}])
        kept, masks = to_original(found, tuple(sample.image.shape[1:]), size)
        expected = result["instances"]
        assert len(kept["boxes"]) == len(expected) > 10
        num_found += len(expected)
        assert torch.equal(kept["labels"] - 1, expected.pred_classes)
        assert box_iou(kept["boxes"], expected.pred_boxes.tensor).diagonal().min() >= 0.999
        torch.testing.assert_close(kept["scores"], expected.scores, rtol=0, atol=1e-4)
        assert (masks is None) == (not pair.job.recipe.model.mask_head)
        if masks is not None:
            assert (masks != expected.pred_masks).float().mean() < 1e-5
            assert masks.any()
    assert len(shapes) > 1
    assert num_found > 80


@with_variants_too
def test_same_losses(pair: Pair) -> None:
    """The five losses of two batches, one of mirrored images, agree to 1e-4 of their value."""
    pair.ours.train()
    pair.theirs.train()
    for batch in _batches(pair.job):
        ours, theirs = _losses(pair, batch)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert float(ours[name]) == pytest.approx(float(value), rel=1e-4), name


def test_same_losses_without_objects(pair: Pair) -> None:
    """A batch with an empty image, and one of empty images alone, have detectron2's losses."""
    pair.ours.train()
    pair.theirs.train()
    empty = [
        make_sample(replace(image, annotations=(), labels=()), SHORT_SIDE, LONG_SIDE, flip=False)
        for image in _photos(pair.job)[:2]
    ]
    full = _batches(pair.job)[0][1]
    for batch in ([empty[0], full], [full, empty[1]], empty):
        ours, theirs = _losses(pair, batch)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert float(ours[name]) == pytest.approx(float(value), rel=1e-4), name
    assert [name for name, value in ours.items() if value == 0] == [
        "loss_rpn_loc",
        "loss_box_reg",
        "loss_mask",
    ]
    pair.ours.zero_grad()
    torch.stack(list(ours.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert not [name for name, part in pair.ours.named_parameters() if part.grad is None]


@pytest.mark.parametrize("pair", [VARIANTS["c4_frozen"]], indirect=True, ids=["c4_frozen"])
def test_same_parameters_are_trained(pair: Pair) -> None:
    """With a frozen trunk, res5 and the heads alone, at the same rates and decays.

    Their steps are not compared: the gradients of its random res5 change by half a percent where
    the weights change by one rounding.
    """
    from detectron2.solver import build_optimizer

    from detection.engines.detectron2.detector import make_config

    solver = pair.job.recipe.solver
    ours = torch.optim.SGD(
        parameter_groups(pair.ours, solver), lr=solver.schedule.lr, momentum=solver.sgd_momentum
    )
    theirs = build_optimizer(make_config(pair.job), pair.theirs)
    assert _decay(ours, pair.ours) == _decay(theirs, pair.theirs)
    names = ModelKeyMap(heads_of(pair.ours.state_dict()))
    trained = {
        names.to_detectron2(n) for n, part in pair.ours.named_parameters() if part.requires_grad
    }
    assert trained == {n for n, part in pair.theirs.named_parameters() if part.requires_grad}
    assert not [name for name in trained if name.startswith("backbone.")]
    assert any(name.startswith("roi_heads.res5.0.") for name in trained)


def test_same_step(pair: Pair) -> None:
    """One step of each engine's own optimizer leaves the same weights and statistics."""
    from detectron2.solver import build_optimizer

    from detection.engines.detectron2.detector import make_config

    pair.ours.train()
    pair.theirs.train()
    solver = pair.job.recipe.solver
    ours = torch.optim.SGD(
        parameter_groups(pair.ours, solver), lr=solver.schedule.lr, momentum=solver.sgd_momentum
    )
    theirs = build_optimizer(make_config(pair.job), pair.theirs)
    assert _decay(ours, pair.ours) == _decay(theirs, pair.theirs)
    before = {name: tensor.clone() for name, tensor in pair.ours.state_dict().items()}
    for losses, optimizer in zip(_losses(pair, _batches(pair.job)[0]), (ours, theirs), strict=True):
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = pair.ours.state_dict()
    expected = to_torchvision_model(pair.theirs.state_dict())
    for name, tensor in after.items():
        moved = (tensor - before[name]).float().norm()
        assert (tensor - expected[name]).float().norm() <= 1e-3 * moved, name


def _decay(optimizer: torch.optim.Optimizer, detector: nn.Module) -> dict[float, int]:
    """Count parameters by (weight decay, momentum, rate)."""
    counts: dict[Any, int] = {}
    for group in optimizer.param_groups:
        key = (group["weight_decay"], group["momentum"], group["lr"])
        counts[key] = counts.get(key, 0) + len(group["params"])
    assert sum(counts.values()) == sum(part.requires_grad for part in detector.parameters())
    return counts


def test_detectron2_s_own_detector_comes_back(pair: Pair, tmp_path: Path) -> None:
    """Weights that detectron2 initialised and saved find the same here."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    from detection.engines.detectron2.detector import make_config

    config = make_config(pair.job)
    theirs = build_model(config).eval()
    (tmp_path / "output").mkdir()
    DetectionCheckpointer(theirs, str(tmp_path / "output")).save("model_final", iteration=9)
    (tmp_path / "output" / "config.yaml").write_text(config.dump())
    done = exchange(tmp_path / "output" / "model_final.pth", tmp_path / "ours.safetensors")
    tensors, metadata, *_ = read_trained(done.weights)
    pair.ours.load_state_dict(tensors)
    assert metadata.mean == pytest.approx(pair.job.trunk.mean)
    sample = TestImages(pair.job.test_set, pair.job.recipe.input)[0]
    assert isinstance(sample, TestSample)
    features = pair.ours.eval().backbone(pair.ours.batched([sample.image]).tensors)
    images = theirs.preprocess_image([{"image": sample.image}])
    expected = theirs.backbone(images.tensor)
    for ours, name in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(ours, expected[name])


def test_run_of_detectron2_is_evaluated_without_it(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Its checkpoint, converted, gives the predictions that detectron2 itself made."""
    recipe = make_recipe(
        engine="detectron2",
        sampling={"proposals_per_image": 1000, "detections_per_image": 100},
        solver={"iterations": 2, "decay_at": [], "warmup_iterations": 0},
        training={"precise_bn_iterations": 2},
    )
    run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    expected = json.loads((recipe.output_dir / "predictions.json").read_text())
    checkpoint = newest_checkpoint(recipe.output_dir)
    assert checkpoint is not None
    done = exchange(checkpoint, tmp_path / "ours.safetensors")
    detector = load_detector(done.weights).detector
    test_set = open_coco(recipe.data.test_annotations, recipe.data.test_images)
    found = detect(detector, test_set, recipe.input, num_workers=0)
    assert len(found) == len(expected) > 10
    for ours, theirs in zip(found, expected, strict=True):
        for key in ("image_id", "category_id", "segmentation"):
            assert ours[key] == theirs[key]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)


def test_same_initialisation(pair: Pair) -> None:
    """Tensor by tensor, freshly built heads have detectron2's mean and spread."""
    from detectron2.modeling import build_model

    from detection.engines.detectron2.detector import make_config

    fresh = build_detector(pair.job.recipe, pair.job.trunk, pair.job.num_classes).state_dict()
    expected = to_torchvision_model(build_model(make_config(pair.job)).state_dict())
    names = IN_ENGINE[features_of(expected)]
    trunk = {name for name in expected if names.to_torchvision(name) is not None}
    compared = counts = 0
    for name, theirs in expected.items():
        if name in trunk or not theirs.is_floating_point():
            counts += name not in trunk
            continue
        ours, compared = fresh[name], compared + 1
        if theirs.numel() < 2000 or float(theirs.std()) == 0:
            torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.3, atol=1e-12)
        else:
            torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.05, atol=0)
        assert abs(float(ours.mean() - theirs.mean())) <= 0.1 * float(theirs.std())
    assert compared == len(expected.keys() - trunk) - counts > 10


def test_same_sizes() -> None:
    """Images of any size are resized to detectron2's sizes."""
    from detectron2.data.transforms import ResizeShortestEdge

    sides = (*range(1, 40, 7), 333, 427, 480, 500, 612, 640, 641, 1333, 4000)
    for height, width in itertools.product(sides, sides):
        for short, limit in ((640, 1333), (800, 1333), (672, 1000), (128, 213)):
            expected = ResizeShortestEdge.get_output_shape(height, width, short, limit)
            clamped = tuple(max(1, side) for side in expected)
            assert resized((height, width), short, limit) == clamped, (height, width, short)


def test_same_samples(pair: Pair) -> None:
    """Resized and mirrored, pixels, boxes and polygons are those of detectron2's mapper."""
    from detectron2.data import DatasetMapper
    from detectron2.data.transforms import RandomFlip, ResizeShortestEdge

    from detection.engines.detectron2.data import training_entries

    for image in _photos(pair.job):
        for flip in (False, True):
            mapper = DatasetMapper(
                is_train=True,
                augmentations=[
                    ResizeShortestEdge(SHORT_SIDE, LONG_SIDE),
                    RandomFlip(float(flip)),
                ],
                image_format="RGB",
                use_instance_mask=True,
            )
            (entry,) = training_entries([image])
            theirs = mapper(entry)
            ours = make_sample(image, SHORT_SIDE, LONG_SIDE, flip)
            assert torch.equal(ours.image, theirs["image"])
            instances = theirs["instances"]
            np.testing.assert_allclose(ours.boxes, instances.gt_boxes.tensor, rtol=0, atol=1e-4)
            assert (ours.labels - 1).tolist() == instances.gt_classes.tolist()
            for outline, polygons in zip(ours.outlines, instances.gt_masks.polygons, strict=True):
                for part, polygon in zip(outline, polygons, strict=True):
                    np.testing.assert_allclose(np.ravel(part), polygon, atol=1e-9)
