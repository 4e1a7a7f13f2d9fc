"""The evaluators, by the name that commands use."""

from rsa_eval.evaluators import diagnostics, finetune, knn, linear, logistic, low_shot, svm
from rsa_eval.evaluators.base import Evaluator, Workspace, record_name

__all__ = ["EVALUATORS", "Evaluator", "Workspace", "record_name"]

EVALUATORS: dict[str, Evaluator] = {
    "knn": knn.EVALUATOR,
    "linear": linear.EVALUATOR,
    "logistic": logistic.EVALUATOR,
    "low-shot": low_shot.EVALUATOR,
    "finetune": finetune.EVALUATOR,
    "svm": svm.EVALUATOR,
    "diagnostics": diagnostics.EVALUATOR,
}
