"""Fine-tune on a set of images from start to end, and classify images by the result."""

from pathlib import Path

import torch

from rsa_eval.evaluators.finetune.batches import EvenOrder, training_steps
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.finetune.tuning import Classifier, Diverged, Tuning
from rsa_eval.evaluators.shared.metrics import Answers, answer
from rsa_eval.evaluators.shared.resumable import StateFile, training_fingerprint
from rsa_eval.features.extract import extract_features
from rsa_eval.features.forward import NonFiniteFeatures
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.distributed import min_over_ranks
from rsa_pretrain.plumbing.errors import UserError

_SCORED_AT_ONCE = 8192


def fine_tune(
    subject: Subject,
    images: ImageSet,
    config: FinetuneConfig,
    path: Path,
    label: str = "fine-tuning",
) -> Tuning:
    """Train a copy of a backbone with a new head to the end, or from where it was stopped.

    Args:
        subject: Backbone and its pixel statistics.
        images: Labelled images.
        config: The evaluation.
        path: File of the training state.
        label: Title of the progress bar.

    Raises:
        Diverged: If the loss stops being finite.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    order = EvenOrder(len(images), config.tuning, config.seed)
    classifier = Classifier(subject.backbone, len(images.class_names), config.seed)
    file = StateFile(path, training_fingerprint(subject, images, config))
    tuning = Tuning(classifier, config, order, file)
    tuning.run(training_steps(subject, images, order, tuning.step, config), label)
    return tuning


@torch.no_grad()
def classify(subject: Subject, tuning: Tuning, images: ImageSet, label: str) -> Answers:
    """Classify images under the evaluation transform; processes share the work.

    Args:
        subject: Supplies the pixel statistics.
        tuning: The finished training.
        images: Labelled images.
        label: Title of the progress bar.

    Raises:
        Diverged: In all processes alike, if a feature or a score is not finite.
    """
    found = tuned_features(subject, tuning, images, tuning.config.data, label)
    parts = []
    for start in range(0, len(images), _SCORED_AT_ONCE):
        rows = slice(start, start + _SCORED_AT_ONCE)
        scores = tuning.classifier.head(found.features[rows].to(tuning.device))
        parts.append(answer(scores, found.labels[rows].to(tuning.device)))
    answers = Answers.of(parts)
    if answers is None:
        raise Diverged(f"the scores of the {images.name} images contain NaN", tuning.config)
    return answers


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
