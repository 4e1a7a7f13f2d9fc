"""Nearest neighbours of the test images among the training images, as an evaluation."""

from rsa_eval.evaluators.base import (
    accuracy_metrics,
    describe_images,
    lack_of_classes,
    open_labelled,
    open_splits,
)
from rsa_eval.features import stored_features
from rsa_eval.frozen import frozen
from rsa_eval.knn import knn_counts
from rsa_eval.knn_config import KNNConfig
from rsa_eval.protocols import knn_deviations
from rsa_eval.record import Result, Workspace
from rsa_eval.share import own_share
from rsa_eval.subject import Subject
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import ImageSet


def evaluate_knn(subject: Subject, config: KNNConfig, workspace: Workspace) -> Result:
    """Classify the test images by their neighbours among the training images.

    With ``config.leave_one_out`` the training images are classified, each by all others. Several
    processes share the extraction and the bank.

    Raises:
        UserError: If the data cannot be used.
    """
    train, test = _open(config)
    num_classes = len(train.class_names)
    with frozen(subject.backbone):
        bank = stored_features(subject, train, config, "train features")
        queries = None
        if test is not None:
            queries = stored_features(subject, test, config, "test features")
    counts = knn_counts(
        bank,
        queries,
        config.settings,
        num_classes,
        config.memory_budget_mib,
        subject.device,
        own_share(),
    )
    num_voters = len(train) - config.leave_one_out
    votes = [
        {
            "k": setting.k,
            "neighbours": min(setting.k, num_voters),
            "temperature": setting.temperature,
            **count.percentages(num_classes),
        }
        for setting, count in zip(config.settings, counts, strict=True)
    ]
    return Result(
        metrics=accuracy_metrics(counts[0], num_classes),
        headline="top1",
        num_samples=counts[0].total,
        details={"votes": votes, "images": describe_images(train, test)},
        deviations=knn_deviations(config, num_voters),
    )


def _open(config: KNNConfig) -> tuple[ImageSet, ImageSet | None]:
    if not config.leave_one_out:
        return open_splits(config)
    images = open_labelled(config, "train")
    lack = lack_of_classes(images)
    if lack is not None:
        raise UserError(f"{lack}: every vote would be right")
    return images, None
