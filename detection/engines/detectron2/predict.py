"""Detection in every test image, and detectron2's own tables of average precision."""

import importlib.util
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from torch import nn

from detection.coco_eval import Prediction
from detection.engines.detectron2.data import (
    evaluation_loader,
    explained_worker_errors,
    register_test,
)
from detection.engines.detectron2.detector import make_config
from detection.job import Job
from rsa_pretrain.distributed import is_main

_RESULTS_FILE = "coco_instances_results.json"


def predict(detector: nn.Module, job: Job) -> list[Prediction]:
    """Detect in every test image once; detectron2 evaluates and logs its tables.

    Args:
        detector: On the job's device; left in the mode it was in.
        job: Names the test images.

    Returns:
        Detections of all processes in COCO's result format, with the annotation file's ids; none
        in a process that is not the main one.
    """
    config = make_config(job)
    with TemporaryDirectory() as folder:
        register_test(job, Path(folder) / "annotations.json")
        evaluator = COCOEvaluator(
            config.DATASETS.TEST[0],
            tasks=job.iou_types,
            output_dir=folder,
            use_fast_impl=importlib.util.find_spec("detectron2._C") is not None,
        )
        # The tables it prints are logged as well.
        with explained_worker_errors(), redirect_stdout(StringIO()):
            inference_on_dataset(detector, evaluation_loader(config), evaluator)
        if not is_main():
            return []
        predictions: list[Prediction] = json.loads((Path(folder) / _RESULTS_FILE).read_text())
    return predictions
