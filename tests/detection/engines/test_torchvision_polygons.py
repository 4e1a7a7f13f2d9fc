"""The engine's rasterisation against pycocotools, object by object."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_codec
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from detection.coco.sets import open_coco, training_images
from detection.engines.torchvision import polygons
from detection.engines.torchvision.polygons import rasterise_in_boxes
from detection.feeding.samples import Polygons, make_sample

COCO = Path(os.environ.get("RSA_DATA", "")) / "coco_mini"

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def _line(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    start, end = random.uniform(0, 28, (2, 2))
    return start + random.uniform(0, 1, (count, 1)) * (end - start)


def _star(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    angles = np.sort(random.uniform(0, 2 * np.pi, count))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return 14 + directions * random.uniform(2, 30, (count, 1))


DRAW: dict[str, Draw] = {
    "anywhere": lambda random, count: random.uniform(-40, 80, (count, 2)),
    "far away": lambda random, count: random.uniform(-600, 600, (count, 2)),
    "on pixels": lambda random, count: random.integers(-10, 40, (count, 2)).astype(float),
    "on grid points": lambda random, count: random.integers(-50, 200, (count, 2)) / 5,
    "between grid points": lambda random, count: random.integers(-100, 400, (count, 2)) / 10,
    "small": lambda random, count: random.integers(-3, 4, (count, 2)) * 0.7,
    "one point": lambda random, count: random.uniform(0, 28, (1, 2)).repeat(count, axis=0),
    "a column": lambda random, count: random.uniform(-5, 35, (count, 2)) * [0, 1] + [9.3, 0],
    "a row": lambda random, count: random.uniform(-5, 35, (count, 2)) * [1, 0] + [0, 9.3],
    "a line": _line,
    "around the middle": _star,
}

WITHOUT_AREA = {"one point", "a column", "a row"}


def _by_pycocotools(objects: list[Polygons], boxes: Tensor, side: int) -> Tensor:
    return torch.stack(
        [_drawn(parts, box, side) for parts, box in zip(objects, boxes.numpy(), strict=True)]
    )


def _drawn(parts: Polygons, box: NDArray[np.float32], side: int) -> Tensor:
    scale = side / np.maximum(box[2:] - box[:2], np.float32(0.1))
    moved = [((part - box[:2]) * scale).ravel().tolist() for part in parts]
    code = mask_codec.merge(mask_codec.frPyObjects(moved, side, side))
    return torch.from_numpy(mask_codec.decode(code)).bool()


def _all_pairs(crosses: Tensor) -> tuple[Tensor, Tensor]:
    """Take every pair, as on a GPU."""
    edges, columns = (torch.arange(length) for length in crosses.shape)
    return edges[:, None], columns


@pytest.fixture(params=["some pairs", "all pairs"])
def pairs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as on a CPU, and as on a GPU."""
    if request.param == "all pairs":
        monkeypatch.setattr(polygons, "_pairs", _all_pairs)


def _objects(random: np.random.Generator, draw: Draw, count: int) -> list[Polygons]:
    return [
        tuple(draw(random, int(random.integers(3, 12))) for _ in range(random.integers(1, 4)))
        for _ in range(count)
    ]


def _boxes(random: np.random.Generator, count: int) -> Tensor:
    """A third is the frame itself, a third of any size, a third of sizes that divide evenly."""
    corners = random.uniform(-10, 20, (count, 2))
    sides = random.uniform(0.3, 40, (count, 2))
    corners[::3], sides[::3] = 0, 28
    sides[1::3] = random.choice([1, 7, 14, 28, 56], sides[1::3].shape)
    return torch.from_numpy(np.hstack([corners, corners + sides]).astype(np.float32))


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("kind", DRAW)
def test_polygons_are_drawn_as_by_pycocotools(kind: str) -> None:
    """Bitwise, of one to three parts, inside, across and outside their boxes, at four sizes."""
    random = np.random.default_rng(sum(map(ord, kind)))
    drawn = 0
    for side in (28, 14, 5, 1):
        objects, boxes = _objects(random, DRAW[kind], 60), _boxes(random, 60)
        found = rasterise_in_boxes(objects, boxes, side)
        assert torch.equal(found, _by_pycocotools(objects, boxes, side))
        drawn += int(found.sum())
    assert (drawn == 0) == (kind in WITHOUT_AREA)


@pytest.mark.usefixtures("pairs")
def test_thin_boxes_are_drawn_as_by_pycocotools() -> None:
    """Without width, height or both, and at and around the limit of 0.1 pixels."""
    random = np.random.default_rng(5)
    objects = _objects(random, DRAW["on grid points"], 60)
    corners = random.uniform(0, 28, (60, 2))
    sides = random.choice([0, 0.05, 0.1, 0.11, 3], (60, 2))
    boxes = torch.from_numpy(np.hstack([corners, corners + sides]).astype(np.float32))
    found = rasterise_in_boxes(objects, boxes, 28)
    assert torch.equal(found, _by_pycocotools(objects, boxes, 28))
    assert found.any()


@pytest.mark.usefixtures("pairs")
@pytest.mark.real_data
@pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set")
def test_coco_s_objects_are_drawn_as_by_pycocotools() -> None:
    """Every training object of the subset, flipped or not, inside three boxes that overlap it."""
    random = np.random.default_rng(6)
    coco = open_coco(COCO / "annotations/instances_train2017.json", COCO / "train2017")
    samples = [
        make_sample(image, 480, 800, bool(random.integers(2))) for image in training_images(coco)
    ]
    objects = [outline for sample in samples for outline in sample.outlines] * 3
    own = np.concatenate([sample.boxes for sample in samples] * 3)
    sides = np.tile(own[:, 2:] - own[:, :2], 2)
    boxes = torch.from_numpy(
        own + random.uniform(-0.25, 0.25, own.shape).astype(np.float32) * sides
    )
    assert len(objects) > 900
    found = rasterise_in_boxes(objects, boxes, 28)  # type: ignore[arg-type]
    assert torch.equal(found, _by_pycocotools(objects, boxes, 28))  # type: ignore[arg-type]


def test_objects_without_parts_are_empty() -> None:
    """Between others, which keep their places; without any edge at all, too."""
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 3)
    found = rasterise_in_boxes([(), (square,), ()], boxes, 4)
    assert found.flatten(1).sum(1).tolist() == [0, 16, 0]
    assert rasterise_in_boxes([()] * 3, boxes, 4).sum() == 0


def test_a_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors have shapes but no values: whatever needs one on the host would fail."""

    def sent(tensor: Tensor, device: torch.device) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    monkeypatch.setattr(polygons, "to_device", sent)
    random = np.random.default_rng(7)
    objects = _objects(random, DRAW["anywhere"], 5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        boxes = torch.empty(5, 4, device="cuda")
        found = rasterise_in_boxes(objects, boxes, 28)
    assert (found.shape, found.device.type, found.dtype) == ((5, 28, 28), "cuda", torch.bool)


@pytest.mark.gpu
def test_a_gpu_draws_the_same() -> None:
    """Bitwise, and torch refuses every wait."""
    random = np.random.default_rng(8)
    objects = [part for draw in DRAW.values() for part in _objects(random, draw, 100)]
    boxes = _boxes(random, len(objects))
    on_gpu = boxes.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = rasterise_in_boxes(objects, on_gpu, 28)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.cpu(), rasterise_in_boxes(objects, boxes, 28))
