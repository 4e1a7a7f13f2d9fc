"""Registry of the evaluators by command name; their code is imported on the first call."""

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
from rsa_eval.evaluators.robustness.settings import RobustnessConfig
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.evaluators.svm.settings import SVMConfig
from rsa_eval.records.record import Kind, Result
from rsa_eval.records.workspace import Workspace

if TYPE_CHECKING:
    from rsa_eval.features.subject import Subject

__all__ = ["EVALUATORS", "Evaluator", "Workspace", "record_name"]


@dataclass(frozen=True)
class Evaluator:
    """One way to measure features."""

    name: Kind
    """Name of the command, also used in records."""
    config: type[EvaluationConfig]
    function: str
    """Its function as ``module:name``: takes a subject, settings (of type ``config``) and a
    workspace, and returns the result."""
    title: str
    """Title of its tables."""
    measures: str
    """Description for the help, as the object of "measure"."""
    needs: str = ""
    """Setting that the help's examples add to a data set's, as ``key=value``."""
    example_images: str = "data/cifar10"
    """Config of images that the help's examples name."""

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
        title="Nearest neighbours",
        measures="top-1 and top-5 accuracy of a nearest-neighbour vote on a frozen backbone's "
        "features",
    ),
    Evaluator(
        name="linear",
        config=LinearConfig,
        function="rsa_eval.evaluators.linear.evaluator:evaluate_linear",
        title="Linear probe",
        measures="top-1 and top-5 accuracy of a linear classifier on a frozen backbone's features",
    ),
    Evaluator(
        name="logistic",
        config=LogisticConfig,
        function="rsa_eval.evaluators.logistic.evaluator:evaluate_logistic",
        title="Logistic regression",
        measures="top-1 and top-5 accuracy of logistic regression on a frozen backbone's features, "
        "C chosen on held-out training images; mean average precision for images with several "
        "classes (PASCAL VOC)",
    ),
    Evaluator(
        name="low-shot",
        config=LowShotConfig,
        function="rsa_eval.evaluators.low_shot.evaluator:evaluate_low_shot",
        title="Low-shot classification",
        measures="top-1 accuracy of logistic regression on a frozen backbone's features, with "
        "labels of 1 %, 10 % or a few images per class, averaged over several draws",
    ),
    Evaluator(
        name="finetune",
        config=FinetuneConfig,
        function="rsa_eval.evaluators.finetune.evaluator:evaluate_finetune",
        title="Fine-tuning",
        measures="top-1 and top-5 accuracy after training backbone and linear layer on 1 %, 10 % "
        "or all of the labels; mean average precision for images with several classes (PASCAL "
        "VOC)",
    ),
    Evaluator(
        name="svm",
        config=SVMConfig,
        function="rsa_eval.evaluators.svm.evaluator:evaluate_svm",
        title="Linear SVM",
        measures="mean average precision of a linear SVM per class on frozen features, for "
        "images with several classes (PASCAL VOC) or one",
    ),
    Evaluator(
        name="robustness",
        config=RobustnessConfig,
        function="rsa_eval.evaluators.robustness.evaluator:evaluate_robustness",
        title="Robustness",
        measures="top-1 accuracy and calibration of logistic regression, a linear probe or a "
        "fine-tuned network on clean, corrupted and otherwise shifted test images (CIFAR-10-C, "
        "CIFAR-100-C, ImageNet-C, -V2, -R, -A, -Sketch)",
        needs="shifts.generate=true",
    ),
    Evaluator(
        name="segmentation",
        config=SegmentationConfig,
        function="rsa_eval.evaluators.segmentation.evaluator:evaluate_segmentation",
        title="Semantic segmentation, dense linear probe",
        measures="mean intersection over union (mIoU), pixel and mean accuracy of a linear "
        "classifier of each place of a frozen backbone's last map, for images with masks (PASCAL "
        "VOC 2012, ADE20K, or your own in either format)",
        example_images="segmentation/voc2012",
    ),
    Evaluator(
        name="diagnostics",
        config=DiagnosticsConfig,
        function="rsa_eval.evaluators.diagnostics.evaluator:evaluate_diagnostics",
        title="Diagnostics",
        measures="RankMe, alpha-ReQ, LiDAR, standard deviation, uniformity and alignment of a "
        "frozen backbone's features, and their similarity (CKA) to another's; plot nearest "
        "neighbours, a t-SNE embedding and, for labelled images, a confusion matrix",
    ),
)

EVALUATORS: dict[str, Evaluator] = {evaluator.name: evaluator for evaluator in _EVALUATORS}
"""Evaluators by name."""


def record_name(kind: str, config: EvaluationConfig) -> str:
    """Return the file name of an evaluation's record."""
    return f"{kind}-{config.recorded_protocol}-{config.images_in_file_names}.json"
