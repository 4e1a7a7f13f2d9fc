"""Notice records whose evaluation would now read other files beside its weights and images."""

from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig
from rsa_eval.evaluators.robustness.settings import RobustnessConfig
from rsa_eval.evaluators.robustness.shifts import folders_of
from rsa_eval.records.record import Record
from rsa_pretrain.plumbing.errors import UserError


def why_outdated(record: Record, config: EvaluationConfig) -> str | None:
    """Return what an evaluation would find that a record of the same settings lacks.

    Shifted images added since, or other weights to compare with. What has been deleted since makes
    no record outdated.

    Args:
        record: The record.
        config: The evaluation's settings.

    Returns:
        None if there is nothing.
    """
    if isinstance(config, DiagnosticsConfig):
        return _other_weights(record, config)
    if isinstance(config, RobustnessConfig):
        return _new_images(record, config)
    return None


def _other_weights(record: Record, config: DiagnosticsConfig) -> str | None:
    from rsa_eval.evaluators.diagnostics.evaluator import load_other

    try:
        other = load_other(config)
    except UserError:
        return None
    if other is None or other.model.sha256 == record.details.get("compared_to", {}).get("sha256"):
        return None
    return f"'{config.compare_to}' has other weights"


def _new_images(record: Record, config: RobustnessConfig) -> str | None:
    from rsa_eval.evaluators.robustness.corrupted import present_corruptions

    for shift, folder in folders_of(config.shifts, config.data.name).items():
        if not folder.is_dir():
            continue
        known = record.details.get("shifts", {}).get(shift.name)
        if known is None:
            return f"{shift.label} is in '{folder}'"
        if shift.is_corrupted:
            found = known["corruptions"] | known["extra_corruptions"]
            if new := [name for name in present_corruptions(shift, folder) if name not in found]:
                return f"{shift.label}'s {new[0]} is in '{folder}'"
    return None
