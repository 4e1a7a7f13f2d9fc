"""Sets in which some or all instances have a box and no mask."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from detection.__main__ import main
from detection.coco.sets import open_coco
from detection.engines.torchvision.pyramid_heads import PyramidHeads
from detection.exchange.config import config_tree
from detection.exchange.export_config import export_config
from detection.feeding.samples import Bitmap
from detection.job.job import open_job
from detection.job.trunk import random_trunk
from detection.recipe.architecture import ModelConfig, SamplingConfig
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_eval.records.record import Record
from rsa_pretrain.plumbing.errors import UserError

pytestmark = pytest.mark.usefixtures("narrow_detector")

Tree = dict[str, Any]

NO_MASKS = "no training instance has a mask: boxes alone are trained, without a mask head"


def _strip_all(tree: Tree) -> None:
    for entry in tree["annotations"]:
        del entry["segmentation"]


def _empty_all(tree: Tree) -> None:
    for entry in tree["annotations"]:
        entry["segmentation"] = []


def _strip_first(tree: Tree) -> None:
    del tree["annotations"][0]["segmentation"]


def _keep(tree: Tree) -> None:
    """Change nothing."""


def _run(recipe: Recipe) -> tuple[Record, list[Tree]]:
    exit_code, record = run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    assert exit_code == 0
    assert record is not None
    predictions: list[Tree] = json.loads((recipe.output_dir / "predictions.json").read_text())
    return record, predictions


@pytest.mark.parametrize("strip", [_strip_all, _empty_all])
@pytest.mark.parametrize(
    "engine",
    [
        "torchvision",
        pytest.param("detectron2", marks=pytest.mark.detectron2),
    ],
)
def test_boxes_alone_train_without_mask_head(
    make_changed_recipe: Callable[..., Recipe], strip: Callable[[Tree], None], engine: str
) -> None:
    """The run says so, its record has no AP of masks, and its head no masks."""
    recipe = make_changed_recipe(
        strip, _keep, engine=engine, training={"evaluate_every_iterations": 1, "device": "cpu"}
    )
    record, predictions = _run(recipe)
    assert NO_MASKS in record.deviations
    assert record.headline == "bbox_AP"
    assert {name.partition("_")[0] for name in record.metrics} == {"bbox"}
    assert all("segm_AP" not in entry for entry in record.details["categories"])
    assert predictions
    assert all("segmentation" not in entry for entry in predictions)


@pytest.mark.full_width
def test_detector_of_boxes_predicts_and_converts(
    make_changed_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """A detector without mask head is loaded, converted to detectron2 and back, and is the same."""
    recipe = make_changed_recipe(
        _strip_all,
        _keep,
        sampling={"proposals_per_image": 1000, "detections_per_image": 100},
    )
    _, expected = _run(recipe)
    there, back = tmp_path / "there.pth", tmp_path / "back.safetensors"
    assert main(["convert", "--model", str(recipe.output_dir), str(there)]) == 0
    keys = yaml.safe_load(there.with_suffix(".yaml").read_text(encoding="utf-8"))
    assert keys["MODEL"]["MASK_ON"] is False
    assert "ROI_MASK_HEAD" not in keys["MODEL"]
    assert main(["convert", "--model", str(there), str(back)]) == 0
    out = tmp_path / "found.json"
    words = [str(recipe.data.test_annotations), str(recipe.data.test_images), str(out)]
    size = ["--short-side", "64", "--max-side", "64"]
    assert main(["predict", str(back), *words, *size]) == 0
    assert json.loads(out.read_text()) == expected


def test_some_missing_masks_train_boxes_alone(make_changed_recipe: Callable[..., Recipe]) -> None:
    """An instance without a mask is trained on and counted; masks are still evaluated."""
    recipe = make_changed_recipe(_strip_first, _keep)
    job = open_job(recipe, random_trunk(recipe.model, 0))
    whole = open_coco(recipe.data.train_annotations, recipe.data.train_images)
    assert sum(len(image.annotations) for image in job.train_images) == len(
        whole.tree["annotations"]
    )
    record, _ = _run(recipe)
    total = len(whole.tree["annotations"])
    lacking = f"1 of {total} training instances have no mask and train boxes alone"
    assert lacking in record.deviations
    assert {"bbox_AP", "segm_AP"} <= record.metrics.keys()


@pytest.mark.parametrize(
    ("strip", "count"), [(_strip_all, "7 of 7"), (_empty_all, "7 of 7"), (_strip_first, "1 of 7")]
)
def test_masks_are_not_evaluated_where_some_lack(
    make_changed_recipe: Callable[..., Recipe],
    strip: Callable[[Tree], None],
    count: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """AP of masks is left out and said so, not 0; boxes are evaluated."""
    record, predictions = _run(make_changed_recipe(_keep, strip))
    assert record.headline == "bbox_AP"
    assert not [name for name in record.metrics if name.startswith("segm")]
    (deviation,) = [line for line in record.deviations if line.startswith("masks are not")]
    assert f"of the test set, {count} annotations have no mask" in deviation
    assert all("segmentation" in entry for entry in predictions)


def test_detectron2_refuses_some_missing_masks(
    make_changed_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Its loader takes masks of all instances or of none: refused by name, with what to do."""
    recipe = make_changed_recipe(_strip_first, _keep, engine="detectron2")
    message = r"1 of 17 .* which detectron2 cannot: use engine=torchvision, or model.mask_head="
    with pytest.raises(UserError, match=message):
        open_job(recipe, random_trunk(recipe.model, 0))
    with pytest.raises(UserError, match=message):
        export_config(recipe, tmp_path / "out.yaml", None)
    boxes = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"mask_head": False})}
    )
    assert open_job(boxes, random_trunk(boxes.model, 0)).iou_types == ("bbox",)
    export_config(boxes, tmp_path / "out.yaml", None)
    keys = yaml.safe_load((tmp_path / "out.yaml").read_text(encoding="utf-8"))
    assert keys["MODEL"]["MASK_ON"] is False


def test_detectron2_gets_no_mask_head(make_changed_recipe: Callable[..., Recipe]) -> None:
    """The keys of a run on boxes alone turn its masks off."""
    recipe = make_changed_recipe(_strip_all, _strip_all, engine="detectron2")
    job = open_job(recipe, random_trunk(recipe.model, 0))
    keys = config_tree(job.recipe, job.trunk, job.num_classes, "polygon")
    assert keys["MODEL"]["MASK_ON"] is False
    assert "ROI_MASK_HEAD" not in keys["MODEL"]


def test_mask_head_can_be_left_out(make_changed_recipe: Callable[..., Recipe]) -> None:
    """model.mask_head=false trains boxes of a set with masks; that is the recipe, no deviation."""
    record, predictions = _run(make_changed_recipe(_keep, _keep, model={"mask_head": False}))
    assert record.headline == "bbox_AP"
    assert not [line for line in record.deviations if "mask" in line and "head" in line]
    assert all("segmentation" not in entry for entry in predictions)


@pytest.fixture
def heads() -> PyramidHeads:
    """Heads over 16 channels and three classes."""
    torch.manual_seed(0)
    model = ModelConfig(box_head_num_convs=1, mask_head_num_convs=1, head_norm="none")
    return PyramidHeads(16, 3, model, SamplingConfig(rois_per_image=8), None).train()


def _mask_loss(heads: PyramidHeads, outlines: list[Any]) -> torch.Tensor:
    torch.manual_seed(1)
    features = {str(level): torch.randn(1, 16, 32 >> level, 32 >> level) for level in range(4)}
    boxes = torch.tensor([[8.0, 8.0, 60.0, 60.0], [70.0, 70.0, 120.0, 120.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "outlines": outlines}
    _, losses = heads(features, [boxes[:0]], [(128, 128)], [target])
    return losses["loss_mask"]  # type: ignore[no-any-return]


def test_mask_loss_is_that_of_the_masks_there_are(heads: PyramidHeads) -> None:
    """Of two objects, the mean loss of both is the mean of what each alone gives."""
    drawn = [Bitmap(np.full((128, 128), value, np.uint8), 0, 0) for value in (1, 0)]
    both = _mask_loss(heads, list(drawn))
    first, second = _mask_loss(heads, [drawn[0], None]), _mask_loss(heads, [None, drawn[1]])
    torch.testing.assert_close(both, (first + second) / 2)
    assert not torch.isclose(first, second)


def test_batch_without_masks_keeps_every_parameter(heads: PyramidHeads) -> None:
    """The loss of a batch of boxes alone is 0, with a gradient of 0 for each parameter."""
    loss = _mask_loss(heads, [None, None])
    assert loss.item() == 0
    loss.backward()
    gradients = [
        parameter.grad for name, parameter in heads.named_parameters() if name.startswith("mask")
    ]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("keep", [None, "segmentation"])
def test_evaluate_leaves_masks_out_that_truth_lacks(
    result_files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    keep: str | None,
) -> None:
    """Boxes are evaluated and what lacks is said; predictions of masks alone are refused."""
    tree = json.loads(Path(result_files[0]).read_text(encoding="utf-8"))
    _strip_first(tree)
    truth, results = tmp_path / "truth.json", Path(result_files[1])
    truth.write_text(json.dumps(tree), encoding="utf-8")
    if keep is not None:
        predictions = json.loads(results.read_text(encoding="utf-8"))
        for entry in predictions:
            del entry["bbox"]
        results.write_text(json.dumps(predictions), encoding="utf-8")
        assert main(["evaluate", str(truth), str(results)]) == 2
        error = capsys.readouterr().err
        assert "1 of 7 annotations have no mask (ids 1); AP of masks needs them all: add" in error
        return
    assert main(["evaluate", str(truth), str(results)]) == 0
    text = capsys.readouterr().out
    assert "masks are not evaluated: 1 of 7 annotations have no mask (ids 1)" in text
    assert "bbox 100.00 " in " ".join(text.split())
    assert "segm" not in text
