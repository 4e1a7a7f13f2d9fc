"""Evaluate a run's average precision, during training and at its end."""

import logging
from collections.abc import Sequence
from pathlib import Path

from detection.coco.evaluation import Evaluation, Prediction, evaluate_in_detail, headline
from detection.coco.voc.evaluation import with_voc_metrics
from detection.job.best import Best, SaveWeights, keep_best
from detection.job.job import Job
from detection.job.training_log import TrainingLog
from rsa_pretrain.plumbing.distributed import is_main

_log = logging.getLogger(__name__)


def evaluate_run(job: Job, predictions: Sequence[Prediction]) -> Evaluation:
    """Evaluate detections on a run's test images, counting as many as its detector keeps.

    PASCAL VOC's sets are evaluated by COCO's rule and by VOC's.
    """
    tree, limit = job.test_set.tree, job.recipe.sampling.detections_per_image
    evaluation = evaluate_in_detail(tree, predictions, job.iou_types, limit)
    if job.recipe.data.format == "voc":
        return with_voc_metrics(evaluation, tree, predictions)
    return evaluation


class Evaluations:
    """Evaluates a detector during training; the final evaluation belongs to the finished run.

    Args:
        job: The run.
        best_file: Receives the best weights.
        save: Writes the weights of the detector in training.
        log: Receives average precision.
    """

    def __init__(self, job: Job, best_file: Path, save: SaveWeights, log: TrainingLog) -> None:
        self._job = job
        self._best_file = best_file
        self._save = save
        self._log = log
        self._said_notes = False

    def due(self, step: int) -> bool:
        """Return whether the detector is evaluated after this many iterations."""
        every = self._job.recipe.training.evaluate_every_iterations
        finished = step == self._job.recipe.solver.schedule.iterations
        return every is not None and step % every == 0 and not finished

    def take(self, step: int, predictions: Sequence[Prediction]) -> None:
        """Evaluate detections, log the result and keep the best weights, in the main process."""
        if not is_main():
            return
        evaluation = evaluate_run(self._job, predictions)
        if not self._said_notes:  # the final evaluation's are in the record
            for note in evaluation.notes:
                _log.warning("iteration %d: %s", step, note)
            self._said_notes = bool(evaluation.notes)
        keep_best(self._best_file, best_of(evaluation, step), self._save)
        self._log.write(step, evaluation.metrics)


def best_of(evaluation: Evaluation, step: int) -> Best:
    """Return the score by which weights are compared."""
    metric = headline(evaluation.metrics)
    return Best(step=step, metric=metric, value=evaluation.metrics[metric])
