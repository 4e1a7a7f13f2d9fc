"""The evaluators, by the name that commands use; the code of each is imported when it is called."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.evaluators.logistic.settings import LogisticConfig
from rsa_eval.evaluators.low_shot.settings import LowShotConfig
from rsa_eval.evaluators.svm.settings import SVMConfig
from rsa_eval.records.record import Kind, Result, Workspace

if TYPE_CHECKING:
    from rsa_eval.features.subject import Subject

__all__ = ["EVALUATORS", "Evaluator", "Workspace", "record_name"]


@dataclass(frozen=True)
class Evaluator:
    """One way to measure features."""

    name: Kind
    """Of the command, and in records."""
    config: type[EvaluationConfig]
    function: str
    """Where it is defined, as ``module:name``: from a subject, the settings (of type ``config``)
    and a workspace to the result."""
    measures: str
    """What the numbers are, for its help: an object of "measure"."""

    def evaluate(
        self, subject: "Subject", config: EvaluationConfig, workspace: Workspace
    ) -> Result:
        """Evaluate a subject.

        Raises:
            UserError: If the data cannot be used.
        """
        result: Result = resolve_name(self.function)(subject, config, workspace)
        return result


_EVALUATORS = (
    Evaluator(
        name="knn",
        config=KNNConfig,
        function="rsa_eval.evaluators.knn.evaluator:evaluate_knn",
        measures="top-1 and top-5 accuracy of a vote of nearest neighbours among a frozen "
        "backbone's features",
    ),
    Evaluator(
        name="linear",
        config=LinearConfig,
        function="rsa_eval.evaluators.linear.evaluator:evaluate_linear",
        measures="top-1 and top-5 accuracy of a linear classifier on a frozen backbone's features",
    ),
    Evaluator(
        name="logistic",
        config=LogisticConfig,
        function="rsa_eval.evaluators.logistic.evaluator:evaluate_logistic",
        measures="top-1 and top-5 accuracy of logistic regression on a frozen backbone's features, "
        "C chosen on held-out training images",
    ),
    Evaluator(
        name="low-shot",
        config=LowShotConfig,
        function="rsa_eval.evaluators.low_shot.evaluator:evaluate_low_shot",
        measures="top-1 accuracy of logistic regression on a frozen backbone's features of 1 %, "
        "10 % or a few images per class, the mean over several draws",
    ),
    Evaluator(
        name="finetune",
        config=FinetuneConfig,
        function="rsa_eval.evaluators.finetune.evaluator:evaluate_finetune",
        measures="top-1 and top-5 accuracy after training backbone and a linear layer on 1 %, 10 % "
        "or all of the labels",
    ),
    Evaluator(
        name="svm",
        config=SVMConfig,
        function="rsa_eval.evaluators.svm.evaluator:evaluate_svm",
        measures="mean average precision of a linear SVM per class on frozen features, of "
        "images with several classes (PASCAL VOC) or one",
    ),
    Evaluator(
        name="diagnostics",
        config=DiagnosticsConfig,
        function="rsa_eval.evaluators.diagnostics.evaluator:evaluate_diagnostics",
        measures="RankMe, standard deviation, uniformity and alignment of a frozen backbone's "
        "features; draw nearest neighbours, a t-SNE picture and, of images with classes, a "
        "confusion matrix",
    ),
)

EVALUATORS: dict[str, Evaluator] = {evaluator.name: evaluator for evaluator in _EVALUATORS}
"""By name."""


def record_name(kind: str, config: EvaluationConfig) -> str:
    """Return the file name of an evaluation's record."""
    return f"{kind}-{config.protocol}-{config.data.name}.json"
