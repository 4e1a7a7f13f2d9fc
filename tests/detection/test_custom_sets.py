"""Test custom sets from the annotation file to the record."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from detection.coco.masks import encode_mask, run_lengths
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from detection.survey.data_check import check_set

Tree = dict[str, Any]
MakeRecipe = Callable[..., Recipe]


def _one_category(tree: Tree) -> None:
    """One category with a high id; no area, no iscrowd; masks as compressed codes."""
    tree["categories"] = [{"id": 907, "name": "thing"}]
    sizes = {image["id"]: (image["height"], image["width"]) for image in tree["images"]}
    for entry in tree["annotations"]:
        code = encode_mask(entry["segmentation"], sizes[entry["image_id"]])
        entry["segmentation"] = {"size": code["size"], "counts": code["counts"].decode("ascii")}
        entry["category_id"] = 907
        del entry["area"], entry["iscrowd"]


def _gaps_and_all_forms(tree: Tree) -> None:
    """Ids 3, 40, 900; polygons beside uncompressed codes; a crowd; an image without annotations."""
    ids = {1: 3, 2: 40, 3: 900}
    for entry in tree["categories"]:
        entry["id"] = ids[entry["id"]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in tree["images"]}
    last = tree["images"][-1]["id"]
    tree["annotations"] = [entry for entry in tree["annotations"] if entry["image_id"] != last]
    for number, entry in enumerate(tree["annotations"]):
        entry["category_id"] = ids[entry["category_id"]]
        size = sizes[entry["image_id"]]
        if number % 2:
            counts = run_lengths(encode_mask(entry["segmentation"], size)["counts"])
            entry["segmentation"] = {"size": list(size), "counts": counts}
    first = tree["images"][0]
    height, width = first["height"], first["width"]
    tree["annotations"].append(
        {
            "id": 10_000,
            "image_id": first["id"],
            "category_id": 40,
            "iscrowd": 1,
            "area": 9,
            "bbox": [0, 0, 3, 3],
            "segmentation": {"size": [height, width], "counts": [0, 3, height * width - 3]},
        }
    )


@pytest.mark.parametrize(
    "engine",
    [
        "torchvision",
        pytest.param("detectron2", marks=pytest.mark.detectron2),
    ],
)
@pytest.mark.parametrize(
    ("change", "ids"), [(_one_category, [907]), (_gaps_and_all_forms, [3, 40, 900])]
)
def test_custom_set_trains(
    make_changed_recipe: MakeRecipe, change: Callable[[Tree], None], ids: list[int], engine: str
) -> None:
    """The check has no error; one iteration gives predictions and a record with the set's ids."""
    recipe = make_changed_recipe(change, change, engine=engine)
    data = recipe.data
    assert check_set(data.train_annotations, data.train_images, "train").errors == {}
    assert check_set(data.test_annotations, data.test_images, "test").errors == {}
    exit_code, record = run_recipe(recipe, random_trunk(recipe.model, 0), resume=False)
    assert exit_code == 0
    assert record is not None
    assert [entry["id"] for entry in record.details["categories"]] == ids
    assert {"bbox_AP", "segm_AP"} <= record.metrics.keys()
    predictions = json.loads((recipe.output_dir / "predictions.json").read_text(encoding="utf-8"))
    assert {entry["category_id"] for entry in predictions} <= set(ids)
