"""Mask R-CNN by detectron2; this folder alone imports it."""

import detection.engines.detectron2.pillow_names  # before detectron2 itself
import detection.engines.norm_statistics  # noqa: F401  # its hook of precise BN then has them
from detection.engines.detectron2.checkpoints import BEST_FILE, save_weights
from detection.engines.detectron2.predict import predict
from detection.engines.detectron2.trainer import train

__all__ = ["BEST_FILE", "DIFFERENCES_FROM_DETECTRON2", "predict", "save_weights", "train"]

DIFFERENCES_FROM_DETECTRON2: tuple[str, ...] = ()
