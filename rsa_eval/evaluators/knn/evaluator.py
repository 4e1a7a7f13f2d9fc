"""Evaluate features by nearest neighbours."""

from collections.abc import Sequence

import torch

from rsa_eval.evaluators.knn.settings import PAPER_VOTE, VOTES, KNNConfig, KNNOptions, KNNSetting
from rsa_eval.evaluators.knn.vote import knn_answers
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.deviations import common_deviations
from rsa_eval.evaluators.shared.feature_checks import classes_of, with_doubts
from rsa_eval.evaluators.shared.labelled_images import (
    accuracy_metrics,
    check_several_classes,
    describe_images,
    open_labelled,
    open_splits,
)
from rsa_eval.features.extract import stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.room import check_memory
from rsa_eval.features.share import ALONE, Share, own_share
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Result, Scores
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet


def evaluate_knn(subject: Subject, config: KNNConfig, workspace: Workspace) -> Result:
    """Classify the test images by their neighbours among the training images.

    With ``config.leave_one_out`` each training image is classified by all others. Several processes
    share the extraction and the bank.

    Raises:
        UserError: If the data cannot be used.
    """
    train, test = _open(config)
    check_memory(subject, config, [train] if test is None else [train, test])
    with frozen(subject.backbone):
        bank = stored_features(subject, train, config, "train features")
        queries = None
        if test is not None:
            queries = stored_features(subject, test, config, "test features")
    scores = knn(
        bank,
        queries,
        config.settings,
        num_classes=len(train.class_names),
        memory_budget_mib=config.memory_budget_mib,
        device=subject.device,
        share=own_share(),
    )
    return with_doubts(scores, bank, queries, len(train.class_names)).result(
        {"images": describe_images(train, test)},
        knn_deviations(config, len(train) - config.leave_one_out),
        (train if test is None else test).keys(),
    )


def knn(
    train: LabelledFeatures,
    test: LabelledFeatures | None,
    settings: Sequence[KNNSetting] = VOTES,
    *,
    num_classes: int | None = None,
    memory_budget_mib: int | None = None,
    device: str | torch.device = "cpu",
    share: Share = ALONE,
) -> Scores:
    """Classify test images by a weighted vote of their nearest training images.

    Wu et al. 2018 (InstDis), Section 3.4; cosine similarity, so features may have any norm.

        scores = knn(train, test, [KNNSetting(k=20, temperature=0.07)])
        scores.value  # top-1 accuracy of the first vote, in percent

    Args:
        train: The voters' features, (N, D).
        test: Features of the classified images, (M, D); None classifies each training image by all
            others (leave one out).
        settings: The votes, all counted in one pass; the first is the headline. The default starts
            with the RSA paper's, k = 200 and T = 0.1.
        num_classes: Classes there are; None takes the largest training label plus one.
        memory_budget_mib: Memory of the comparison beside the features, in MiB; None takes 512 on
            a CPU and a quarter of a GPU's free memory.
        device: Where the comparison runs.
        share: The part of the training images that this process compares.

    Returns:
        ``top1`` and, for more than five classes, ``top5`` in percent; each vote's in
        ``details["votes"]``.

    Raises:
        UserError: If an image has no class, widths differ or a feature is not finite.
    """
    num_classes = classes_of(train, test, num_classes)
    answers = knn_answers(
        train, test, settings, num_classes, memory_budget_mib, torch.device(device), share
    )
    num_voters = len(train.labels) - (test is None)
    counts = [own.counts for own in answers]
    votes = [
        {
            "k": setting.k,
            "neighbours": min(setting.k, num_voters),
            "temperature": setting.temperature,
            **count.percentages(num_classes),
        }
        for setting, count in zip(settings, counts, strict=True)
    ]
    return Scores(
        metrics=accuracy_metrics(counts[0], num_classes),
        headline="top1",
        num_samples=counts[0].total,
        details={"votes": votes},
        predictions=kept_answers(
            (train if test is None else test).labels, {"": answers[:1]}, num_classes
        ),
    )


def _open(config: KNNConfig) -> tuple[ImageSet, ImageSet | None]:
    if not config.leave_one_out:
        return open_splits(config)
    images = open_labelled(config, "train")
    check_several_classes(images)
    return images, None


def knn_deviations(config: KNNConfig, bank_size: int) -> list[str]:
    """List the departures of a kNN evaluation's headline.

    Args:
        config: The run's settings.
        bank_size: Number of training images that vote on an image.
    """
    deviations = common_deviations(config)
    if config.leave_one_out:
        deviations.append("each training image classified by the others (protocol: test images)")
    return deviations + vote_deviations(config, bank_size)


def vote_deviations(options: KNNOptions, bank_size: int) -> list[str]:
    """List the departures of the headline's vote.

    Args:
        options: The votes.
        bank_size: Number of training images that vote on an image.
    """
    deviations, headline = [], options.settings[0]
    if headline != PAPER_VOTE:
        deviations.append(f"{headline.label} (protocol: {PAPER_VOTE.label})")
    if headline.k > bank_size:
        deviations.append(f"all {bank_size} training images vote (k={headline.k})")
    return deviations
