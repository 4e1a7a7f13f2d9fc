import os
from collections.abc import Callable
from pathlib import Path

import pytest

from detection.coco.sets import check_objects, mask_gap, open_coco, training_images
from detection.job.trunk import load_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_eval.records.record import read_record
from rsa_pretrain.weights.checkpoint import LoadedBackbone

ROOT = Path(os.environ.get("RSA_DATA", "")) / "coco_mini"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set"),
]


def test_coco_opens() -> None:
    """Real annotations pass every check: 80 categories with gaps, crowds, run-length codes."""
    sets = {
        split: open_coco(ROOT / f"annotations/instances_{split}2017.json", ROOT / f"{split}2017")
        for split in ("train", "val")
    }
    assert sets["train"].category_ids == sets["val"].category_ids
    assert len(sets["val"].category_ids) == 80
    assert sets["val"].category_ids[-1] == 90
    check_objects(sets["val"].annotations_path, sets["val"].tree)
    assert mask_gap(sets["val"].tree) is None
    assert [found.repairs for found in sets.values()] == [(), ()]
    images = training_images(sets["train"])
    assert 30 <= len(images) <= 39
    assert max(label for image in images for label in image.labels) <= 80


def test_two_iterations_on_coco(
    make_recipe: Callable[..., Recipe], write_checkpoint: Callable[..., LoadedBackbone]
) -> None:
    """Photos of all sizes train and are evaluated at small size."""
    data = {
        "train_annotations": str(ROOT / "annotations/instances_train2017.json"),
        "train_images": str(ROOT / "train2017"),
        "test_annotations": str(ROOT / "annotations/instances_val2017.json"),
        "test_images": str(ROOT / "val2017"),
    }
    solver = {"iterations": 2, "decay_at": [], "warmup_iterations": 0}
    recipe = make_recipe(data=data, solver=solver)
    trunk = load_trunk(write_checkpoint().path, recipe.model)
    assert run_recipe(recipe, trunk, resume=False)[0] == 0
    record = read_record(recipe.output_dir / "records" / "detection.json")
    assert record.num_samples == 44
    assert 0 <= record.metrics["segm_AP"].value <= 100
