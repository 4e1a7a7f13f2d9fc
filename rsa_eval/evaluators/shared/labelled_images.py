"""Open labelled images and describe results, for all evaluators."""

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.shared.metrics import TopKCounts
from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.record import Metric
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.sets import DATA_SETS, Split
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


def open_labelled(config: EvaluationConfig, split: Split) -> ImageSet:
    """Open one split whose images all have classes.

    Raises:
        UserError: If the data cannot be used.
    """
    images = open_images(config.data, split)
    images.require_labels()
    return images


def open_splits(config: EvaluationConfig) -> tuple[ImageSet, ImageSet]:
    """Open the training and the test images.

    Raises:
        UserError: If the data cannot be used, a test image has a class unknown in training, or
            all training images are of one class.
    """
    train, test = open_labelled(config, "train"), open_labelled(config, "test")
    check_test_classes(train, test)
    check_several_classes(train)
    return train, ImageSet(test.name, test.sources, test.labels, train.class_names, test.rows)


def check_several_classes(train: ImageSet) -> None:
    """Refuse training images that are all of one class, where every prediction is right.

    Raises:
        UserError: If they are.
    """
    labels = set(train.require_labels())
    if len(labels) == 1:
        raise UserError(
            f"all {len(train):,} training images are of class "
            f"'{train.class_names[labels.pop()]}'; an evaluation needs two classes or more: check "
            "data.root and data.train_dir"
        )


def check_test_classes(train: ImageSet, test: ImageSet) -> None:
    """Refuse test images of classes missing from the training images.

    Raises:
        UserError: If there are any.
    """
    unknown = [
        test.class_names[label]
        for label in sorted(set(test.require_labels()))
        if train.class_names[label : label + 1] != [test.class_names[label]]
    ]
    if unknown:
        raise UserError(
            f"the test images of {test.name} have classes that the training images lack or "
            f"number differently ({len(unknown)}): {first_of(unknown)}; remove them from the test "
            "split or add them to the training split"
        )


def lack_of_classes(*sets: ImageSet) -> str | None:
    """Return why images cannot be evaluated by class; None if they can."""
    for images in sets:
        if not images.is_labelled:
            return (
                f"{'the' if images.labels is None else 'some'} {images.name} images have no class"
            )
        if len(images.class_names) < 2:
            return f"all {images.name} images are of one class, '{images.class_names[0]}'"
    return None


def accuracy_metrics(counts: TopKCounts, num_classes: int) -> dict[str, Metric]:
    """Return top-1 and, for more than five classes, top-5 as metrics of a record."""
    found = counts.percentages(num_classes)
    return {name: Metric(value=value, unit="%") for name, value in found.items()}


def headline_of(data_set: str) -> str:
    """Return the metric that the literature reports for a data set; ``top1`` for unknown ones."""
    return next((entry.metric for entry in DATA_SETS if entry.name == data_set), "top1")


def accuracies(
    counts: TopKCounts, predictions: ClassPredictions, headline: str
) -> dict[str, Metric]:
    """Return the accuracies of one classifier.

    Args:
        counts: Its hits.
        predictions: Its answers.
        headline: ``top1`` or ``mean_per_class``.

    Returns:
        As ``accuracy_metrics``, and the headline.
    """
    metrics = accuracy_metrics(counts, predictions.num_classes)
    if headline not in metrics:
        value = predictions.value(headline)
        assert value is not None
        metrics[headline] = Metric(value=value, unit="%")
    return metrics


def describe_images(
    train: ImageSet, test: ImageSet | None
) -> dict[str, dict[str, str | int] | None]:
    """Return the number and fingerprint of the images, for a record's details.

    Args:
        train: Training images.
        test: Test images; None if none were read.
    """
    return {
        split: None if images is None else {"count": len(images), "sha256": images.fingerprint()}
        for split, images in (("train", train), ("test", test))
    }
