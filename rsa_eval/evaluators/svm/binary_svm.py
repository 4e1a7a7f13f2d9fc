"""Train linear support vector machines, one per class, with costs chosen by cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from rsa_eval.evaluators.shared.convergence import counting_cut_short
from rsa_eval.evaluators.shared.multi_label import Truth
from rsa_eval.evaluators.svm.settings import MachineConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.progress import progress_bar

Matrix = npt.NDArray[np.float64]

_FEWEST_FOLDS = 2


@dataclass(frozen=True)
class BinarySVM:
    """One class's machine and its cross-validation."""

    estimator: LinearSVC
    cost: float
    fold_ap: list[float]
    """Average precision in percent by cost, averaged over the folds."""
    num_cut_short: int
    """Fits that did not converge, including those of the folds."""


def to_unit_norm(features: Matrix) -> Matrix:
    """Divide each row by its norm plus 1e-5, as Goyal et al. do."""
    scaled: Matrix = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
    return scaled


def train_machines(
    features: Matrix, truth: Truth, class_names: Sequence[str], config: MachineConfig, seed: int
) -> list[BinarySVM]:
    """Train one machine per class, on the images not labelled 0 (ignored) for that class.

    Args:
        features: Features of the training images, (N, D).
        truth: 1, -1 or 0 for each class, (N, C).
        class_names: Names of the classes.
        config: Costs and solver.
        seed: Seed of the order in which liblinear visits the images.

    Raises:
        UserError: If a class has fewer positive or negative images than there are folds.
    """
    machines = []
    with progress_bar(len(class_names), "linear SVM", "class") as bar:
        for name, own in zip(class_names, truth.T, strict=True):
            for what, count in (("", (own == 1).sum()), ("not ", (own == -1).sum())):
                if count < config.folds:
                    advice = ": add some, or leave the class out of both splits"
                    if count >= _FEWEST_FOLDS:
                        advice = f", or set machine.folds={count}"
                    raise UserError(
                        f"{count} training images are {what}of class '{name}'; cross-validation "
                        f"with {config.folds} folds needs {config.folds}{advice}"
                    )
            known = own != 0
            machines.append(_train_machine(features[known], own[known], config, seed))
            bar.update()
    return machines


def _train_machine(features: Matrix, labels: Truth, config: MachineConfig, seed: int) -> BinarySVM:
    estimator = LinearSVC(
        class_weight={1: config.positive_weight, -1: 1},
        dual=True,
        max_iter=config.max_iterations,
        tol=config.tolerance,
        random_state=seed,
    )
    fold_ap = []
    with counting_cut_short() as cut_short:
        for cost in config.costs:
            estimator.set_params(C=cost)
            scores = cross_val_score(
                estimator, features, labels, cv=config.folds, scoring="average_precision"
            )
            fold_ap.append(100 * float(scores.mean()))
        best = config.costs[int(np.argmax(fold_ap))]  # ties go to the smallest
        estimator.set_params(C=best).fit(features, labels)
    return BinarySVM(estimator, best, fold_ap, cut_short.count)


def score_images(machines: Sequence[BinarySVM], features: Matrix) -> Matrix:
    """Return each machine's score of each image, (N, C), for features (N, D)."""
    return np.stack([own.estimator.decision_function(features) for own in machines], axis=1)
