"""Gather detections of all processes."""

import torch.distributed as dist

from detection.coco.evaluation import Prediction
from rsa_pretrain.plumbing.distributed import world_size


def gathered(predictions: list[Prediction]) -> list[Prediction]:
    """Concatenate all processes' predictions in order of image id, in every process."""
    parts: list[list[Prediction]] = [predictions]
    if world_size() > 1:
        parts = [[] for _ in range(world_size())]
        dist.all_gather_object(parts, predictions)
    everything = [prediction for part in parts for prediction in part]
    return sorted(everything, key=lambda prediction: int(prediction["image_id"]))
