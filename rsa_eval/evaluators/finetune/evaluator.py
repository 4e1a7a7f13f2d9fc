"""Evaluate a backbone by fine-tuning."""

import torch

from rsa_eval.evaluators.finetune.settings import FINETUNE_PROTOCOLS, FinetuneConfig
from rsa_eval.evaluators.finetune.tuning import (
    Classifier,
    EvenOrder,
    Tuning,
    answers_of,
    shares_batchnorm,
    training_steps,
)
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.deviations import common_deviations, settings_deviations
from rsa_eval.evaluators.shared.labelled_images import (
    accuracy_metrics,
    describe_images,
    open_splits,
)
from rsa_eval.evaluators.shared.metrics import Answers
from rsa_eval.evaluators.shared.resumable import StateFile, training_fingerprint
from rsa_eval.evaluators.shared.subsets import class_counts, subset_rows
from rsa_eval.features.extract import extract_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_eval.records.record import Result
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.distributed import world_size


def evaluate_finetune(subject: Subject, config: FinetuneConfig, workspace: Workspace) -> Result:
    """Fine-tune a copy of the backbone and test it once, after the last epoch.

    Raises:
        UserError: If the data cannot be used, or the training diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    train, test = open_splits(config)
    labelled = _labelled(train, config)
    tuning = _tune(subject, labelled, config, workspace)
    answers, num_classes = _test(subject, tuning, test, config), len(train.class_names)
    return Result(
        metrics=accuracy_metrics(answers.counts, num_classes),
        headline="top1",
        num_samples=len(test),
        details={
            "loss_by_epoch": tuning.losses,
            "labelled": {
                "count": len(labelled),
                **class_counts(labelled.require_labels()),
                "sha256": labelled.fingerprint(),
            },
            "images": describe_images(train, test),
        },
        predictions=kept_answers(test.labels_of(range(len(test))), {"": [answers]}, num_classes),
        deviations=_deviations(config, subject.device),
        test_keys=test.keys(),
    )


def _labelled(train: ImageSet, config: FinetuneConfig) -> ImageSet:
    if config.subset is None:
        return train
    return train.select(subset_rows(train, config.subset, config.subset_seed))


def _tune(
    subject: Subject, labelled: ImageSet, config: FinetuneConfig, workspace: Workspace
) -> Tuning:
    order = EvenOrder(len(labelled), config.tuning, config.seed)
    classifier = Classifier(subject.backbone, len(labelled.class_names), config.seed)
    file = StateFile(workspace.state, training_fingerprint(subject, labelled, config))
    tuning = Tuning(classifier, config, order, file)
    tuning.run(training_steps(subject, labelled, order, tuning.step, config))
    return tuning


def _test(subject: Subject, tuning: Tuning, test: ImageSet, config: FinetuneConfig) -> Answers:
    transform = evaluation_transform(config.data, subject.mean, subject.std)
    backbone, share = tuning.classifier.backbone, own_share()
    with frozen(backbone):
        features = extract_features(backbone, test, transform, config, "test features", share)
    return answers_of(tuning.classifier.head, features)


def _deviations(config: FinetuneConfig, device: torch.device) -> list[str]:
    deviations = finetune_deviations(config)
    if world_size() > 1 and not shares_batchnorm(config.tuning, device):
        deviations.append(
            f"BatchNorm statistics of {world_size()} processes apart (protocol: shared)"
        )
    return deviations


def finetune_deviations(config: FinetuneConfig) -> list[str]:
    """List the departures of fine-tuning, except those due to several processes."""
    published = FINETUNE_PROTOCOLS[config.protocol]
    deviations = [
        *common_deviations(config),
        *settings_deviations(config.tuning, published.tuning),
    ]
    if config.subset is None:
        deviations.append(f"all labels (protocol: {published.subset.name})")
    elif config.subset.list_file is None:
        if config.subset != published.subset:
            deviations.append(f"labels {config.subset.name} (protocol: {published.subset.name})")
        if config.data.name == "imagenet":
            deviations.append("labels drawn at random (protocol: those of SimCLR's lists)")
    return deviations
