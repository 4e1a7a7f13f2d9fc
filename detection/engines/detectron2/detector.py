"""Build a job's detector, with its trunk loaded and verified."""

from collections.abc import Mapping

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor, nn

import detection.engines.detectron2.stage_heads  # noqa: F401  # registers MoCo's heads
from detection.exchange.config import config_tree, mask_format
from detection.exchange.trunk_names import BATCH_COUNT, IN_DETECTRON2, features_of
from detection.job.job import Job
from detection.job.trunk import Trunk, check_arrived


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
    found = _trunk_of(detector)
    expected = _expected(found, trunk)
    unmatched = sorted(found.keys() ^ expected.keys())
    if unmatched:
        raise RuntimeError(f"the trunk and the detector's do not match: {', '.join(unmatched[:5])}")
    detector.load_state_dict(expected, strict=False)


def check_trunk(detector: nn.Module, trunk: Trunk) -> None:
    """Check bitwise that every trunk tensor inside the detector is the expected one.

    Raises:
        RuntimeError: If one is missing, unexpected or different.
    """
    found = _trunk_of(detector)
    check_arrived(found, _expected(found, trunk))


def _trunk_of(detector: nn.Module) -> dict[str, Tensor]:
    """Return the detector's trunk tensors by their full names."""
    state = detector.state_dict()
    names = IN_DETECTRON2[features_of(state)]
    return {name: tensor for name, tensor in state.items() if names.to_torchvision(name)}


def _expected(found: Mapping[str, Tensor], trunk: Trunk) -> dict[str, Tensor]:
    """Return the trunk by the detector's names; frozen norms have no batch count."""
    names = IN_DETECTRON2[features_of(found)]
    renamed = {names.from_torchvision(name): tensor for name, tensor in trunk.tensors.items()}
    return {
        name: tensor
        for name, tensor in renamed.items()
        if name in found or not name.endswith(BATCH_COUNT)
    }
