"""Build Mask R-CNN from torchvision's parts: detectron2's arithmetic without detectron2."""

from detection.engines.torchvision.differences import DIFFERENCES_FROM_DETECTRON2
from detection.engines.torchvision.prediction import predict
from detection.engines.torchvision.run_state import BEST_FILE, save_weights
from detection.engines.torchvision.trainer import check, train

# The interface of an engine (``detection.engines.Engine``).
__all__ = ["BEST_FILE", "DIFFERENCES_FROM_DETECTRON2", "check", "predict", "save_weights", "train"]
