"""Export a recipe as plain YAML for detectron2's own programs, with its initial weights."""

import logging
from pathlib import Path
from textwrap import indent

import yaml

from detection.coco.data_settings import DetectionData
from detection.coco.opening import read_sound
from detection.coco.sets import Annotation, reason_to_leave_out
from detection.exchange.config import MOCO_HEADS, config_tree, mask_format
from detection.exchange.convert import convert_loaded
from detection.exchange.registration import registration
from detection.exchange.trunk_names import BOTTOM_UP
from detection.job.job import with_trainable_heads
from detection.job.trunk import random_trunk, trunk_of
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.config.layers import Tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated
from rsa_pretrain.weights.load import load_weights

_log = logging.getLogger(__name__)

_OPENING = "Mask R-CNN of rsa-detect's recipe"


def export_config(recipe: Recipe, out: Path, checkpoint: str | Path | None) -> Path | None:
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


def _read_data(data: DetectionData) -> tuple[int, list[Annotation]]:
    """Return the number of training categories and the instances to train on."""
    coco = read_sound(data, "train")
    if coco.repairs:
        _log.warning("detectron2's programs read %s without these repairs", data.source_of("train"))
    sizes = coco.sizes
    used: list[Annotation] = [
        annotation
        for annotation in coco.tree["annotations"]
        if reason_to_leave_out(annotation, sizes[annotation["image_id"]]) is None
    ]
    if data.format == "voc":  # detectron2's reader takes boxes alone
        used = [{**annotation, "segmentation": None} for annotation in used]
    return len(coco.category_ids), used


def _header(recipe: Recipe, out: Path, tree: Tree) -> str:
    data = recipe.data
    text = f"""\
{_OPENING} {recipe.name}, for detectron2's tools/train_net.py; the norms of
several processes (SyncBN) need several GPUs, on one set them to BN:

  python train_net.py --config-file {out} --num-gpus 8

train_net.py must know the images. Either add to it

{registration(data)}

{_advice(tree)}
"""
    if tree["MODEL"]["ROI_HEADS"]["NAME"] == MOCO_HEADS:
        text += (
            f"\ntrain_net.py must also register {MOCO_HEADS}, the heads with a norm after res5:\n"
            "facebookresearch/moco's detection/train_net.py does, which evaluates only sets with\n"
            "coco or voc in their names.\n"
        )
    if data.keep_empty_images:
        text += (
            "\nFILTER_EMPTY_ANNOTATIONS False also keeps images with only crowds, which rsa-detect "
            "leaves out.\n"
        )
    return indent(text, "# ", lambda line: True).replace("# \n", "#\n")


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
