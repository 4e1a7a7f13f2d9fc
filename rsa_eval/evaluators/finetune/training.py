"""Fine-tune on a set of images from start to end, and classify images by the result."""

from pathlib import Path

import torch

from rsa_eval.evaluators.finetune.batches import EvenOrder, training_steps
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.finetune.task import TuningTask
from rsa_eval.evaluators.finetune.tuning import Classifier, Diverged, Tuning
from rsa_eval.evaluators.shared.resumable import StateFile, training_fingerprint
from rsa_eval.features.extract import extract_features
from rsa_eval.features.forward import NonFiniteFeatures
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_eval.records.record import Scores
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.distributed import min_over_ranks
from rsa_pretrain.plumbing.errors import UserError

_SCORED_AT_ONCE = 8192


def fine_tune(
    subject: Subject,
    task: TuningTask,
    config: FinetuneConfig,
    path: Path,
    label: str = "fine-tuning",
) -> Tuning:
    """Train a copy of a backbone with a new head to the end, or from where it was stopped.

    Args:
        subject: Backbone and its pixel statistics.
        task: Labelled images.
        config: The evaluation.
        path: File of the training state.
        label: Title of the progress bar.

    Raises:
        Diverged: If the loss stops being finite.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    order = EvenOrder(len(task.images), config.tuning, config.seed)
    classifier = Classifier(subject.backbone, task.num_outputs, config.seed)
    file = StateFile(path, task_fingerprint(subject, task, config))
    tuning = Tuning(classifier, config, order, file, task.loss)
    tuning.run(training_steps(subject, task.images, order, tuning.step, config), label)
    return tuning


def task_fingerprint(subject: Subject, task: TuningTask, config: FinetuneConfig) -> str:
    """Return the hashes, joined, of everything that determines a training."""
    return training_fingerprint(subject, task.images, config) + task.annotation


@torch.no_grad()
def classify(subject: Subject, tuning: Tuning, task: TuningTask, label: str) -> Scores:
    """Classify images under the evaluation transform; processes share the work.

    Args:
        subject: Supplies the pixel statistics.
        tuning: The finished training.
        task: Labelled images.
        label: Title of the progress bar.

    Raises:
        Diverged: In all processes alike, if a feature or a score is not finite.
    """
    found = tuned_features(subject, tuning, task.images, tuning.config.data, label)
    halves = (torch.split(half, _SCORED_AT_ONCE) for half in (found.features, found.labels))
    blocks = (
        (tuning.classifier.head(features.to(tuning.device)), labels.to(tuning.device))
        for features, labels in zip(*halves, strict=True)
    )
    scores = task.scores(blocks)
    if scores is None:
        raise Diverged(f"the scores of the {task.images.name} images contain NaN", tuning.config)
    return scores


def tuned_features(
    subject: Subject, tuning: Tuning, images: ImageSet, data: DataConfig, label: str
) -> LabelledFeatures:
    """Extract features with the fine-tuned backbone; processes share the work.

    Args:
        subject: Supplies the pixel statistics.
        tuning: The finished training.
        images: Labelled images.
        data: Determines the evaluation transform.
        label: Title of the progress bar.

    Raises:
        Diverged: In all processes alike, if a feature is not finite.
    """
    config, backbone = tuning.config, tuning.classifier.backbone
    transform = evaluation_transform(data, subject.mean, subject.std)
    with frozen(backbone):
        try:
            return extract_features(backbone, images, transform, config, label, own_share())
        except UserError as error:
            # The features of one process's images may be finite; its error is another one.
            if not min_over_ranks(int(not isinstance(error, NonFiniteFeatures))):
                reason = f"{label} are not finite at precision {config.precision}"
                raise Diverged(reason, config) from None
            raise
