"""Registry of the evaluators that need no images, for features that were extracted elsewhere."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from rsa_eval.evaluators.diagnostics.settings import GivenDiagnosticsConfig
from rsa_eval.evaluators.knn.settings import GivenKNNConfig
from rsa_eval.evaluators.linear.settings import GivenLinearConfig
from rsa_eval.evaluators.logistic.settings import GivenLogisticConfig
from rsa_eval.evaluators.low_shot.settings import GivenLowShotConfig
from rsa_eval.evaluators.svm.settings import GivenSVMConfig
from rsa_eval.features.given_settings import GivenFeaturesConfig
from rsa_eval.records.record import Kind, Scores

if TYPE_CHECKING:
    import torch

    from rsa_eval.features.labelled import LabelledFeatures


@dataclass(frozen=True)
class GivenEvaluator:
    """One way to measure given features."""

    name: Kind
    """Name of the command."""
    config: type[GivenFeaturesConfig]
    function: str
    """Its function as ``module:name``: takes the training and the test features, settings (of type
    ``config``) and a device, and returns the scores and the departures from the protocol."""

    def evaluate(
        self,
        train: "LabelledFeatures",
        test: "LabelledFeatures",
        config: GivenFeaturesConfig,
        device: "torch.device",
    ) -> tuple[Scores, list[str]]:
        """Evaluate features.

        Raises:
            UserError: If they cannot be used.
        """
        found: tuple[Scores, list[str]] = resolve_name(self.function)(train, test, config, device)
        return found


_GIVEN_EVALUATORS = (
    GivenEvaluator("knn", GivenKNNConfig, "rsa_eval.evaluators.knn.given:score_given_knn"),
    GivenEvaluator(
        "linear", GivenLinearConfig, "rsa_eval.evaluators.linear.given:score_given_linear"
    ),
    GivenEvaluator(
        "logistic", GivenLogisticConfig, "rsa_eval.evaluators.logistic.given:score_given_logistic"
    ),
    GivenEvaluator(
        "low-shot", GivenLowShotConfig, "rsa_eval.evaluators.low_shot.given:score_given_low_shot"
    ),
    GivenEvaluator("svm", GivenSVMConfig, "rsa_eval.evaluators.svm.given:score_given_svm"),
    GivenEvaluator(
        "diagnostics",
        GivenDiagnosticsConfig,
        "rsa_eval.evaluators.diagnostics.given:score_given_diagnostics",
    ),
)

GIVEN_EVALUATORS: dict[str, GivenEvaluator] = {each.name: each for each in _GIVEN_EVALUATORS}
"""Evaluators of given features by name."""
