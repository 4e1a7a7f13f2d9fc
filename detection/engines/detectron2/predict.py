"""Detect in every test image."""

from contextlib import closing

import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from torch import nn

from detection.coco.evaluation import Prediction
from detection.engines.detectron2.data import evaluation_batches
from detection.engines.detectron2.detector import make_config
from detection.engines.gathering import gathered
from detection.job.job import Job
from rsa_pretrain.plumbing.distributed import world_size
from rsa_pretrain.plumbing.progress import progress_bar


@torch.no_grad()
def predict(detector: nn.Module, job: Job) -> list[Prediction]:
    """Detect in every test image once.

    Args:
        detector: On the job's device; left in the mode it was in.
        job: Provides the test images.

    Returns:
        Detections of all processes, in every process, in COCO's result format, with the annotation
        file's ids.
    """
    ids = job.test_set.category_ids
    was_training = detector.training
    detector.eval()
    predictions: list[Prediction] = []
    total = len(job.test_set.images)
    loaded = evaluation_batches(make_config(job), job)
    with progress_bar(total, "detecting", "img") as bar, closing(loaded):
        for (sample,) in loaded:
            (found,) = detector([sample])
            entries = instances_to_coco_json(found["instances"].to("cpu"), sample["image_id"])
            predictions += [{**e, "category_id": ids[e["category_id"]]} for e in entries]
            bar.update(world_size())
    detector.train(was_training)
    return gathered(predictions)
