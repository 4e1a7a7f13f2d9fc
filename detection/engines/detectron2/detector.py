"""Build a job's detector, with its trunk loaded and verified."""

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor, nn

from detection.exchange.config import config_tree, mask_format
from detection.exchange.trunk_names import BATCH_COUNT, DETECTRON2_PREFIX, to_detectron2
from detection.job.job import Job
from detection.job.trunk import Trunk, check_arrived

_BOTTOM_UP = DETECTRON2_PREFIX.rstrip(".")


def make_config(job: Job) -> CfgNode:
    """Return detectron2's config of a job, frozen; every non-default key is ours."""
    config = get_cfg()
    masks = mask_format(entry for image in job.train_images for entry in image.annotations)
    config.merge_from_other_cfg(CfgNode(config_tree(job.recipe, job.trunk, job.num_classes, masks)))
    config.MODEL.DEVICE = str(job.device)
    config.freeze()
    return config


def build_detector(config: CfgNode, trunk: Trunk) -> nn.Module:
    """Build the detector on the config's device and load its trunk.

    Raises:
        RuntimeError: If the trunk's tensors do not match the detector's exactly.
    """
    detector: nn.Module = build_model(config)
    load_into_detector(detector, trunk)
    check_trunk(detector, trunk)
    return detector


def load_into_detector(detector: nn.Module, trunk: Trunk) -> None:
    """Load a trunk by detectron2's full names, completely or not at all.

    Raises:
        RuntimeError: If a tensor is missing, left over or of another shape.
    """
    bottom_up = detector.get_submodule(_BOTTOM_UP)
    bottom_up.load_state_dict(_expected(bottom_up, trunk), strict=True)


def check_trunk(detector: nn.Module, trunk: Trunk) -> None:
    """Check bitwise that every trunk tensor inside the detector is the expected one.

    Raises:
        RuntimeError: If one is missing, unexpected or different.
    """
    bottom_up = detector.get_submodule(_BOTTOM_UP)
    check_arrived(bottom_up.state_dict(), _expected(bottom_up, trunk))


def _expected(bottom_up: nn.Module, trunk: Trunk) -> dict[str, Tensor]:
    """Return the trunk by the module's names; frozen norms have no batch count."""
    has = bottom_up.state_dict().keys()
    renamed = {
        to_detectron2(name).removeprefix(DETECTRON2_PREFIX): tensor
        for name, tensor in trunk.tensors.items()
    }
    return {
        name: tensor
        for name, tensor in renamed.items()
        if name in has or not name.endswith(BATCH_COUNT)
    }
