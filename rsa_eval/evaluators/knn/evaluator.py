"""Evaluate features by nearest neighbours."""

from rsa_eval.evaluators.knn.settings import PAPER_VOTE, KNNConfig
from rsa_eval.evaluators.knn.vote import knn_counts
from rsa_eval.evaluators.shared.labelled_images import (
    accuracy_metrics,
    describe_images,
    lack_of_classes,
    open_labelled,
    open_splits,
)
from rsa_eval.evaluators.shared.protocols import (
    common_deviations,
)
from rsa_eval.features.extract import stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Result, Workspace
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.errors import UserError


def evaluate_knn(subject: Subject, config: KNNConfig, workspace: Workspace) -> Result:
    """Classify the test images by their neighbours among the training images.

    With ``config.leave_one_out`` each training image is classified by all others. Several processes
    share the extraction and the bank.

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


def knn_deviations(config: KNNConfig, bank_size: int) -> list[str]:
    """List the departures of a kNN evaluation's headline.

    Args:
        config: The run's settings.
        bank_size: Number of training images that vote on an image.
    """
    deviations = common_deviations(config)
    headline = config.settings[0]
    if headline != PAPER_VOTE:
        deviations.append(f"{headline.label} (protocol: {PAPER_VOTE.label})")
    if config.leave_one_out:
        deviations.append("each training image classified by the others (protocol: test images)")
    if headline.k > bank_size:
        deviations.append(f"all {bank_size} training images vote (k={headline.k})")
    return deviations
