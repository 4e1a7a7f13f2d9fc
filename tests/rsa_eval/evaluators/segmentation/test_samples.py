"""Samples of images with masks, the identity of their cached maps, and predicted pixels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from masked_shapes import write_shapes
from PIL import Image

from rsa_eval.evaluators.segmentation.evaluator import evaluate_segmentation
from rsa_eval.evaluators.segmentation.maps import _entry
from rsa_eval.evaluators.segmentation.samples import TrainingSamples
from rsa_eval.evaluators.segmentation.sets import MaskedSet, open_masked
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.evaluators.segmentation.testing import classes_of_pixels
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.plumbing.errors import UserError

MakeConfig = Callable[..., SegmentationConfig]


def training_set(config: SegmentationConfig) -> MaskedSet:
    """The training images."""
    return open_masked(config.data, config.masks, "train")


def test_each_epoch_draws_another_view(make_config: MakeConfig) -> None:
    """The same image twice in an epoch is the same, in another epoch it is another."""
    config = make_config()
    samples = TrainingSamples(training_set(config), config)
    first, again, later = (samples[epoch, 3] for epoch in (0, 0, 1))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.masks[0], again.masks[0])
    assert not torch.equal(first.pixels, later.pixels)
    assert not torch.equal(first.masks[0], later.masks[0])


def test_cached_training_checks_sizes(
    make_config: MakeConfig, random_subject: Subject, tmp_path: Path
) -> None:
    """Its maps may be older than a mask."""
    root = write_shapes(tmp_path / "shapes")
    config = make_config(root, probe={"mode": "cached"}, cache_dir=tmp_path / "maps")
    evaluate_segmentation(random_subject, config, Workspace(tmp_path / "a.json"))
    Image.new("L", (9, 9)).save(root / "SegmentationClass/shape_00.png")
    with pytest.raises(UserError, match=r"shape_00\.png' has 9 × 9 pixels, its image"):
        evaluate_segmentation(random_subject, config, Workspace(tmp_path / "b.json"))


def test_classes_are_predicted_on_the_square() -> None:
    """Logits by hand: enlarged bilinearly to four columns, then to eight by the nearest.

    Class 1 leads by -1 and 3 at the places' centres, so by -1, 0, 2 and 3 in the four columns; a
    tie is class 0. Enlarged at once to eight columns, class 1 would lead from the fourth on.
    """
    logits = torch.zeros(2, 1, 2)
    logits[1, 0] = torch.tensor([-1.0, 3.0])
    found = classes_of_pixels(logits, 4, (1, 8))
    assert found.dtype == torch.uint8
    assert found.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    direct = torch.nn.functional.interpolate(
        logits[None], (1, 8), mode="bilinear", align_corners=False
    )[0].argmax(dim=0)
    assert direct.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]


def test_cached_maps_have_an_identity(
    make_config: MakeConfig, random_subject: Subject, tmp_path: Path
) -> None:
    """All that changes a map changes the file: precision, type, stride, statistics, squares."""

    def name(subject: Subject = random_subject, **changes: object) -> str:
        probe = {"mode": "cached", "output_stride": changes.pop("output_stride", 8)}
        config = make_config(probe=probe, cache_dir=tmp_path, **changes)
        with frozen(subject.backbone):
            return _entry(subject, training_set(config), (8, 8, 8), config).path.name

    found = [
        name(),
        name(precision="bf16"),
        name(feature_dtype="fp16"),
        name(output_stride=16),
        name(data={"image_size": 96}),
        name(data={"eval_interpolation": "bilinear"}),
        name(replace(random_subject, mean=(0.1, 0.2, 0.3))),
        name(replace(random_subject, std=(0.1, 0.2, 0.3))),
    ]
    assert len(set(found)) == len(found)
    assert name() == found[0]
