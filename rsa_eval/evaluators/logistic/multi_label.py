"""Evaluate features of images with several classes each by logistic or ridge regression.

One C serves all classes. In logistic regression each has a sigmoid output, and the sum of their
losses fits all at once (Kornblith et al. 2019 on PASCAL VOC 2007; BYOL, Grill et al. 2020, Table
3).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsa_eval.evaluators.logistic.choice import choose_c, describe_choice
from rsa_eval.evaluators.logistic.deviations import logistic_deviations
from rsa_eval.evaluators.logistic.fit import LinearClassifier, LogisticFit, score_blocks
from rsa_eval.evaluators.logistic.multi_label_ridge import multi_label_ridge
from rsa_eval.evaluators.logistic.objective import MeanLoss, sigmoid_loss
from rsa_eval.evaluators.logistic.path import FitPath
from rsa_eval.evaluators.logistic.settings import LogisticConfig, SearchConfig
from rsa_eval.evaluators.shared.average_precision import ELEVEN_POINTS, ranking_scores
from rsa_eval.evaluators.shared.feature_checks import with_doubt_if_alike
from rsa_eval.evaluators.shared.held_out_labels import multi_label_rows, require_classes
from rsa_eval.evaluators.shared.multi_label import (
    Truth,
    describe_multi_label,
    multi_label_validation,
    open_multi_label_splits,
)
from rsa_eval.evaluators.shared.multi_label_settings import MultiLabelConfig
from rsa_eval.evaluators.shared.subsets import Rows
from rsa_eval.features.extract import stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.room import check_memory
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import Result, Scores

_PUBLISHED_SEARCH = SearchConfig()


def evaluate_multi_label(
    subject: Subject, config: LogisticConfig, multi_label: MultiLabelConfig
) -> Result:
    """Choose C on training images, refit on all training images, and rank the test images once.

    Raises:
        UserError: If the data cannot be used.
    """
    train, test = open_multi_label_splits(config.data, multi_label)
    validation = None
    if config.protocol == "kornblith":
        validation = multi_label_validation(config.data, multi_label, train)
    check_memory(subject, config, [train.images, test.images])
    with frozen(subject.backbone):
        known = stored_features(subject, train.images, config, "train features")
        unknown = stored_features(subject, test.images, config, "test features")
    both = (known.features, train.every_truth), (unknown.features, test.every_truth)
    names, search, device = train.class_names, config.search, subject.device
    if config.protocol == "ridge":
        scores = multi_label_ridge(*both, names, search, device=device)
    else:
        scores = multi_label_regression(
            *both, names, search, seed=config.seed, device=device, validation=validation
        )
    scores = with_doubt_if_alike(scores, known.features)
    details = describe_multi_label(train, test) | {
        "num_published_validation_images": None if validation is None else len(validation),
    }
    return scores.result(details, logistic_deviations(config, validation), test.images.keys())


def multi_label_regression(
    train: tuple[Tensor, Truth],
    test: tuple[Tensor, Truth],
    class_names: Sequence[str],
    search: SearchConfig = _PUBLISHED_SEARCH,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    validation: Rows | None = None,
) -> Scores:
    """Rank test images by logistic regression, its C chosen by 11-point mAP on validation images.

    Args:
        train: Features, (N, D), and truth of the training images: 1 (present), -1 (absent) or 0
            (left out of this class), (N, C).
        test: The same of the test images.
        class_names: Names of the C classes.
        search: Values of C, the share held out and the fit's tolerance.
        seed: Seeds the draw of held-out images.
        device: Where to compute; None computes where the features are.
        validation: Places of the training images that choose C; None draws them.

    Returns:
        ``mAP_11_points``, VOC 2007's mean over eleven recalls, and ``mAP``, the area under the
        precision-recall curve, both averaged over the classes, in percent; the chosen ``C``, the
        score of every other and each class in ``details``.

    Raises:
        UserError: If no test, validation or other training image is of a class, or all of the
            latter are.
    """
    (features, truth), (test_features, test_truth) = train, test
    require_classes(test_truth, (1,), class_names, "test images")
    chosen = multi_label_rows(
        truth,
        validation,
        class_names,
        search.held_out_percent,
        seed,
        key="search.held_out_percent",
    )
    rest = np.setdiff1d(np.arange(len(truth)), chosen)
    held_out = torch.from_numpy(chosen)

    def score(fit: LogisticFit) -> float:
        scores = _scores(fit.classifier, features, held_out)
        return ranking_scores(scores, truth[chosen], class_names).value

    trial = MultiLabelFitter(train, search, rows=rest, device=device)
    choice = choose_c(trial.fit, score, search.strengths)
    final = MultiLabelFitter(train, search, start=choice.fit, device=device).fit(choice.c)
    found = ranking_scores(_scores(final.classifier, test_features), test_truth, class_names)
    details = describe_choice(choice, final, search, ELEVEN_POINTS)
    return replace(found, details=details | found.details)


class MultiLabelFitter:
    """Fits one C after another for all classes of the same images.

    Args:
        train: Features, (N, D), which may be mapped from a file or on a GPU, and truth, (N, C).
        search: Limit of iterations and tolerance.
        rows: Indices of the images to fit; None fits all.
        start: A fit of the same classes to start from.
        device: Where to compute; None computes where the features are.
    """

    def __init__(
        self,
        train: tuple[Tensor, Truth],
        search: SearchConfig,
        *,
        rows: Rows | None = None,
        start: LogisticFit | None = None,
        device: torch.device | None = None,
    ) -> None:
        features, truth = train
        self._classes = torch.arange(truth.shape[1])
        loss = MeanLoss(
            features,
            torch.from_numpy(truth if rows is None else truth[rows]),
            sigmoid_loss,
            truth.shape[1],
            rows=None if rows is None else torch.from_numpy(rows),
            device=device,
        )
        self._path = FitPath(
            loss,
            max_iterations=search.max_iterations,
            tolerance=search.tolerance,
            start=None if start is None else start.coefficients,
        )

    def fit(self, c: float) -> LogisticFit:
        """Fit with this C."""
        found = self._path.fit(c)
        weights, intercepts = found.coefficients[:-1], found.coefficients[-1]
        classifier = LinearClassifier(weights, intercepts, self._classes)
        return LogisticFit(classifier, found.coefficients, found.converged, found.iterations)


def _scores(
    classifier: LinearClassifier, features: Tensor, rows: Tensor | None = None
) -> npt.NDArray[np.float64]:
    """Return logits, (N, C): a probability of nearly 1 would tie with the next."""
    num_classes = len(classifier.classes)
    blocks = score_blocks(classifier, features, num_classes, rows)
    found: npt.NDArray[np.float64] = torch.cat([scores.cpu() for _, scores in blocks]).numpy()
    return found
