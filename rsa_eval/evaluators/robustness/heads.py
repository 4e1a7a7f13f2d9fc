"""Train a classifier as its own evaluator does, and keep it to classify further images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rsa_eval.evaluators.finetune.evaluator import fine_tune_chosen
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.finetune.task import ClassTask
from rsa_eval.evaluators.finetune.training import tuned_features
from rsa_eval.evaluators.linear.deviations import linear_deviations
from rsa_eval.evaluators.linear.evaluator import train_chosen
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.evaluators.logistic.deviations import logistic_deviations
from rsa_eval.evaluators.logistic.evaluator import fit_chosen, validation_of
from rsa_eval.evaluators.logistic.settings import LogisticConfig
from rsa_eval.evaluators.robustness.settings import RobustnessConfig
from rsa_eval.evaluators.shared.labelled_images import headline_of
from rsa_eval.features.extract import evaluation_features, stored_features
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.subject import Subject
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.settings import DataConfig


@dataclass(frozen=True)
class TrainedHead:
    """A trained classifier of C classes.

    Attributes:
        features: Extracts its features, (N, D), under the evaluation transform of some settings.
        scores: Turns features, (n, D), into logits, (n, C); minus infinity for a class that had no
            training image.
        details: Details of the training, for a record.
        deviations: Departures from the head's protocol.
    """

    features: Callable[[ImageSet, DataConfig], LabelledFeatures]
    scores: Callable[[Tensor], Tensor]
    details: dict[str, Any]
    deviations: list[str]


def train_head(
    subject: Subject, train: ImageSet, config: RobustnessConfig, workspace: Workspace
) -> TrainedHead:
    """Train the head of an evaluation.

    Args:
        subject: Backbone, frozen and in eval mode, and its pixel statistics.
        train: Labelled training images.
        config: The evaluation.
        workspace: Where the state of a linear probe or of fine-tuning is kept.

    Raises:
        UserError: If the images cannot be used, or the training diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    evaluation = config.head_evaluation()
    if isinstance(evaluation, LogisticConfig):
        return _logistic(subject, train, evaluation)
    if isinstance(evaluation, LinearConfig):
        return _linear(subject, train, evaluation, workspace)
    return _finetuned(subject, train, evaluation, workspace)


def _logistic(subject: Subject, train: ImageSet, config: LogisticConfig) -> TrainedHead:
    def features(images: ImageSet, data: DataConfig) -> LabelledFeatures:
        own = config.model_copy(update={"data": data})
        return stored_features(subject, images, own, f"{images.name} features")

    num_classes, validation = len(train.class_names), validation_of(train, config)
    fitted = fit_chosen(
        stored_features(subject, train, config, "train features"),
        config.search,
        num_classes=num_classes,
        seed=config.seed,
        device=subject.device,
        validation=validation,
        headline=headline_of(config.data.name),
    )
    return TrainedHead(
        features,
        lambda block: fitted.fit.classifier.scores(block, num_classes),
        fitted.details,
        logistic_deviations(config, validation),
    )


def _linear(
    subject: Subject, train: ImageSet, config: LinearConfig, workspace: Workspace
) -> TrainedHead:
    def features(images: ImageSet, data: DataConfig) -> LabelledFeatures:
        own = config.model_copy(update={"data": data})
        return evaluation_features(subject, images, own, f"{images.name} features")

    probe = train_chosen(subject, train, config, workspace.state)
    return TrainedHead(
        features,
        lambda block: probe.scores(block.to(subject.device)),
        {"mode": config.probe.mode, **probe.details},
        linear_deviations(config, probe.state.step),
    )


def _finetuned(
    subject: Subject, train: ImageSet, config: FinetuneConfig, workspace: Workspace
) -> TrainedHead:
    network = fine_tune_chosen(subject, ClassTask(train), config, workspace)
    tuning = network.tuning

    def features(images: ImageSet, data: DataConfig) -> LabelledFeatures:
        return tuned_features(subject, tuning, images, data, f"{images.name} features")

    return TrainedHead(
        features,
        lambda block: tuning.classifier.head(block.to(tuning.device)),
        network.details,
        network.deviations,
    )
