"""Share small checkpoints, drawn data and a recipe among the detection tests."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import narrow
import pytest
import torch

from benchmarks.voc_rendering import render_voc
from detection.coco.masks import encode_mask
from detection.coco.sets import CocoSet, open_coco
from detection.coco.shapes import ShapesConfig, write_shapes
from detection.recipe.architecture import HEAD_LAYERS
from detection.recipe.recipe import Recipe
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_backbone, save_tensors
from rsa_pretrain.weights.metadata import BackboneMetadata, library_versions


def small_metadata(arch: str, stem: str) -> BackboneMetadata:
    """Describe weights as pretraining would; the statistics are no data set's."""
    return parse_tree(
        BackboneMetadata,
        {
            "format_version": 1,
            "arch": arch,
            "stem": stem,
            "method": "rsa",
            "image_size": 32,
            "channel_order": "RGB",
            "mean": (0.5, 0.4, 0.3),
            "std": (0.25, 0.2, 0.1),
            "data_set": "digits",
            "epochs": 2.0,
            "step": 40,
            "seed": 0,
            "config_hash": "0" * 64,
            "parent": None,
            "library_versions": library_versions(),
        },
        "test",
    )


@pytest.fixture
def narrow_detector(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make the torchvision engine's detectors of ResNet-18 narrow; detectron2's are as they are."""
    if any(map(request.node.get_closest_marker, ("detectron2", "full_width"))):
        yield
        return
    with narrow.narrow_detector():
        yield


@pytest.fixture(scope="session")
def write_checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., LoadedBackbone]:
    """Write a backbone with random weights and BatchNorm statistics, once of each shape."""
    written: dict[tuple[str, str, bool], LoadedBackbone] = {}

    def write(arch: str = "resnet18", stem: str = "standard") -> LoadedBackbone:
        key = (arch, stem, narrow.is_narrow())
        if key not in written:
            torch.manual_seed(7)
            state = build_backbone(BackboneConfig.named(arch, stem)).state_dict()
            for index, (name, tensor) in enumerate(state.items()):
                if name.endswith(("running_mean", "bn1.bias")):
                    tensor.normal_(0, 0.1)
                elif name.endswith(("running_var", "bn3.weight", "bn2.weight")):
                    tensor.uniform_(0.5, 1.5)
                elif name.endswith("num_batches_tracked"):
                    tensor.fill_(index)
            path = tmp_path_factory.mktemp("checkpoint") / f"{arch}_{stem}.safetensors"
            save_tensors(path, state, small_metadata(arch, stem))
            written[key] = load_backbone(path)
        return written[key]

    return write


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and three test images of 64 px."""
    folder = tmp_path_factory.mktemp("shapes") / "set"
    write_shapes(folder, ShapesConfig(num_train=6, num_test=3, image_size=64, seed=3))
    return folder


def recipe_tree(folder: Path, output_dir: Path) -> dict[str, Any]:
    """Describe a run of four iterations that takes seconds."""
    return {
        "name": "test",
        "output_dir": str(output_dir),
        "data": {
            "name": "shapes",
            "train_annotations": str(folder / "annotations" / "instances_train.json"),
            "train_images": str(folder / "train"),
            "test_annotations": str(folder / "annotations" / "instances_val.json"),
            "test_images": str(folder / "val"),
            "num_workers": 0,
        },
        "input": {
            "train_short_sides_pixels": [48, 64],
            "test_short_side_pixels": 64,
            "max_side_pixels": 64,
        },
        "model": {"arch": "resnet18", "box_head_num_convs": 1, "mask_head_num_convs": 1},
        "sampling": {
            "anchors_per_image": 32,
            "proposals_per_image": 20,
            "rois_per_image": 8,
            "detections_per_image": 5,
        },
        "solver": {
            "base_lr": 0.0025,
            "batch_size": 2,
            "reference_batch_size": 2,
            "iterations": 4,
            "decay_at": [3],
            "warmup_iterations": 2,
        },
        "training": {
            "device": "cpu",
            "precise_bn_iterations": None,
            "checkpoint_every_iterations": 100,
        },
    }


@pytest.fixture(scope="session")
def c4() -> dict[str, Any]:
    """Model settings of a detector on C4."""
    return {"features": "C4", **dict.fromkeys(HEAD_LAYERS, 0)}


@pytest.fixture(scope="session")
def make_recipe_at(shapes_folder: Path) -> Callable[..., Recipe]:
    """Return the small recipe of a run folder, with changes such as ``solver={…}``."""

    def make(run_dir: Path, /, **changes: Any) -> Recipe:
        tree = recipe_tree(shapes_folder, run_dir)
        for key, value in changes.items():
            tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
        return parse_tree(Recipe, tree, "test")

    return make


@pytest.fixture
def make_recipe(make_recipe_at: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Recipe]:
    """Return the small recipe, with changes such as ``solver={"iterations": 2}``."""
    return partial(make_recipe_at, tmp_path / "run")


@pytest.fixture(scope="session")
def voc_folder(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn images as VOCdevkit: 2007/trainval, and 2012/test with a difficult object."""
    kit = tmp_path_factory.mktemp("voc") / "VOCdevkit"
    for split, name in (("train", "2007/trainval"), ("val", "2012/test")):
        path = shapes_folder / "annotations" / f"instances_{split}.json"
        coco = open_coco(path, shapes_folder / split)
        if split == "val":
            coco.tree["annotations"][0]["difficult"] = 1
        render_voc(coco, kit, name)
    return kit


@pytest.fixture
def make_voc_recipe(make_recipe: Callable[..., Recipe], voc_folder: Path) -> Callable[..., Recipe]:
    """Return the small recipe on VOC's folders, with changes such as ``data={"root": …}``."""
    data = {
        "name": "shapes-voc",
        "format": "voc",
        "root": voc_folder,
        "train": ("2007/trainval",),
        "test": ("2012/test",),
        "classes": ("circle", "rectangle", "triangle"),
        "num_workers": 0,
    }

    def make(**changes: Any) -> Recipe:
        tree = to_tree(make_recipe(**{key: changes[key] for key in changes if key != "data"}))
        return parse_tree(Recipe, {**tree, "data": {**data, **changes.get("data", {})}}, "test")

    return make


@pytest.fixture
def make_changed_recipe(
    make_recipe: Callable[..., Recipe], shapes_folder: Path, tmp_path: Path
) -> Callable[..., Recipe]:
    """Return the small recipe of one iteration on sets whose two annotation files are changed."""

    def make(
        train: Callable[[dict[str, Any]], None],
        test: Callable[[dict[str, Any]], None],
        **changes: Any,
    ) -> Recipe:
        data = {}
        for split, role, change in (("train", "train", train), ("val", "test", test)):
            source = shapes_folder / "annotations" / f"instances_{split}.json"
            tree = json.loads(source.read_text(encoding="utf-8"))
            change(tree)
            path = tmp_path / f"{split}.json"
            path.write_text(json.dumps(tree), encoding="utf-8")
            data[f"{role}_annotations"] = str(path)
        solver = {"iterations": 1, "decay_at": [], "warmup_iterations": 0}
        return make_recipe(data=data, solver=solver, **changes)

    return make


@pytest.fixture
def sparse_data(shapes_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Data settings: of the six training images, two have objects; the others are kept."""
    source = shapes_folder / "annotations" / "instances_train.json"
    tree = json.loads(source.read_text(encoding="utf-8"))
    tree["annotations"] = [entry for entry in tree["annotations"] if entry["image_id"] <= 2]
    path = tmp_path / "sparse.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return {"train_annotations": str(path), "keep_empty_images": True}


@pytest.fixture
def shapes_test_set(shapes_folder: Path) -> CocoSet:
    """The three drawn test images."""
    return open_coco(shapes_folder / "annotations" / "instances_val.json", shapes_folder / "val")


@pytest.fixture
def perfect_predictions(shapes_test_set: CocoSet) -> list[dict[str, Any]]:
    """Predict exactly what is annotated, with scores from 0.99 down."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in shapes_test_set.images}
    predictions = []
    for number, entry in enumerate(shapes_test_set.tree["annotations"]):
        code = encode_mask(entry["segmentation"], sizes[entry["image_id"]])
        predictions.append(
            {
                "image_id": entry["image_id"],
                "category_id": entry["category_id"],
                "bbox": entry["bbox"],
                "score": 0.99 - 0.1 * number,
                "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
            }
        )
    return predictions


@pytest.fixture
def result_files(
    shapes_test_set: CocoSet, perfect_predictions: list[dict[str, Any]], tmp_path: Path
) -> list[str]:
    """Annotations and predictions as words of a command."""
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(perfect_predictions), encoding="utf-8")
    return [str(shapes_test_set.annotations_path), str(path)]
