"""Train and run Mask R-CNN by detectron2; only this folder imports it."""

import detection.engines.detectron2.pillow_names  # before detectron2 itself
import detection.engines.norm_statistics  # noqa: F401  # before its precise BN hook
from detection.engines.detectron2.checkpoints import BEST_FILE, save_weights
from detection.engines.detectron2.predict import predict
from detection.engines.detectron2.trainer import check, train

__all__ = ["BEST_FILE", "DIFFERENCES_FROM_DETECTRON2", "check", "predict", "save_weights", "train"]

DIFFERENCES_FROM_DETECTRON2: tuple[str, ...] = ()
