"""Export a recipe as plain YAML for detectron2's own programs, with its initial weights."""

import logging
from pathlib import Path
from textwrap import indent

import yaml

from detection.coco.sets import Annotation, read_sound_tree, reason_to_leave_out
from detection.exchange.config import MOCO_HEADS, config_tree, data_set_names, mask_format
from detection.exchange.convert import convert_loaded
from detection.exchange.trunk_names import BOTTOM_UP
from detection.job.job import with_trainable_heads
from detection.job.trunk import random_trunk, trunk_of
from detection.recipe import CocoDataConfig, Recipe
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.layers import Tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated
from rsa_pretrain.weights.foreign.load import load_weights

_log = logging.getLogger(__name__)

_OPENING = "Mask R-CNN of rsa-detect's recipe"


def export_config(recipe: Recipe, out: Path, checkpoint: Path | None) -> Path | None:
    """Write the recipe's detectron2 keys to ``out``, and the weights beside it.

    Args:
        recipe: The run.
        out: YAML file to write.
        checkpoint: Backbone to start from, as for ``convert``; None starts from random weights.

    Returns:
        The weights file, ``out`` with the ending ``.pkl``; None without a checkpoint.

    Raises:
        UserError: If ``out`` is misnamed, the annotations or the checkpoint cannot be used, or the
            recipe asks for something that detectron2's programs have no key for.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"'{out}' should end in .yaml")
    check_generated(out, f"# {_OPENING}")
    if recipe.training.precision == "bf16":
        raise UserError("detectron2's programs have no precision 'bf16'; use 'fp16' or 'fp32'")
    weights = None
    if checkpoint is None:
        trunk = random_trunk(recipe.model, recipe.seed)
    else:
        loaded = load_weights(checkpoint)
        trunk = trunk_of(loaded, recipe.model)
        weights = out.with_suffix(".pkl")
    num_classes, instances = _read_data(recipe.data)
    recipe, _ = with_trainable_heads(recipe.model_copy(update={"engine": "detectron2"}), instances)
    tree = config_tree(recipe, trunk, num_classes, mask_format(instances))
    tree["MODEL"]["WEIGHTS"] = "" if weights is None else str(weights)
    if recipe.training.device == "cpu":
        tree["MODEL"]["DEVICE"] = "cpu"
    if weights is not None:
        convert_loaded(loaded, weights, recipe.model.features)
    write_text(out, _header(recipe, out, tree) + yaml.safe_dump(tree, sort_keys=False))
    return weights


def _read_data(data: CocoDataConfig) -> tuple[int, list[Annotation]]:
    """Return the number of training categories and the instances to train on."""
    tree, repairs, _ = read_sound_tree(data.train_annotations, data.train_images)
    if repairs:
        _log.warning(
            "detectron2's programs read '%s' without these repairs", data.train_annotations
        )
    sizes = {image["id"]: (image["height"], image["width"]) for image in tree["images"]}
    used = [
        annotation
        for annotation in tree["annotations"]
        if reason_to_leave_out(annotation, sizes[annotation["image_id"]]) is None
    ]
    return len(tree["categories"]), used


def _header(recipe: Recipe, out: Path, tree: Tree) -> str:
    train, test = data_set_names(recipe)
    data = recipe.data
    text = f"""\
{_OPENING} {recipe.name}, for detectron2's tools/train_net.py; the norms of
several processes (SyncBN) need several GPUs, on one set them to BN:

  python train_net.py --config-file {out} --num-gpus 8

train_net.py must know the images. Either add to it

  from detectron2.data.datasets import register_coco_instances
  {_registration(train, data.train_annotations, data.train_images)}
  {_registration(test, data.test_annotations, data.test_images)}

or, for COCO itself below $DETECTRON2_DATASETS, end the command with

  DATASETS.TRAIN '("coco_2017_train",)' DATASETS.TEST '("coco_2017_val",)'

Its evaluation counts an annotation of id 0 as never found: number test annotations from 1.

{_advice(tree)}
"""
    if tree["MODEL"]["ROI_HEADS"]["NAME"] == MOCO_HEADS:
        text += (
            f"\ntrain_net.py must also register {MOCO_HEADS}, the heads with a norm after res5:\n"
            "take facebookresearch/moco's detection/train_net.py.\n"
        )
    if data.keep_empty_images:
        text += (
            "\nFILTER_EMPTY_ANNOTATIONS False also keeps images with only crowds, which rsa-detect "
            "leaves out.\n"
        )
    return indent(text, "# ", lambda line: True).replace("# \n", "#\n")


def _registration(name: str, annotations: Path, images: Path) -> str:
    return f"register_coco_instances({name!r}, {{}}, {str(annotations)!r}, {str(images)!r})"


def _advice(tree: Tree) -> str:
    if not tree["MODEL"]["WEIGHTS"]:
        return "It starts from random weights."
    on_c4 = tree["MODEL"]["BACKBONE"]["NAME"] == "build_resnet_backbone"
    places = "backbone or of a block of roi_heads.res5" if on_c4 else BOTTOM_UP
    return (
        "detectron2 only warns about weights that it does not find: its log must name no missing\n"
        f"parameter of {places}. Rate and schedule are those of "
        f"{tree['SOLVER']['IMS_PER_BATCH']} images per iteration."
    )
