"""List the departures of a logistic regression from its published protocol."""

from rsa_eval.evaluators.logistic.settings import LogisticConfig, LogisticOptions, SearchConfig
from rsa_eval.evaluators.shared.deviations import (
    DINOV2,
    KORNBLITH,
    Extraction,
    common_deviations,
    settings_deviations,
)
from rsa_eval.evaluators.shared.subsets import Rows

_SHORT_SIDE = 224
"""Of the resized image, in dinov2/eval/log_regression.py and Kornblith et al. 2019, whose crop of
the centre is as large; linear probes have the usual 256."""
_EXTRACTIONS = {"dinov2": DINOV2, "kornblith": KORNBLITH, "ridge": Extraction(None)}


def logistic_deviations(config: LogisticConfig, validation: Rows | None = None) -> list[str]:
    """List the departures of a logistic regression.

    Args:
        config: The evaluation.
        validation: Published validation images; None if there are none.
    """
    deviations = common_deviations(config, _EXTRACTIONS[config.protocol])
    if config.protocol != "ridge" and config.data.eval_resize not in (None, _SHORT_SIDE):
        deviations.append(
            f"short side resized to {config.data.eval_resize} (protocol: {_SHORT_SIDE})"
        )
    return deviations + search_deviations(config, validation)


def search_deviations(options: LogisticOptions, validation: Rows | None = None) -> list[str]:
    """List the departures of the search for C and of the fit."""
    is_multi_label = isinstance(options, LogisticConfig) and options.multi_label is not None
    deviations = settings_deviations(options.search, SearchConfig())
    if options.protocol == "dinov2":
        tolerance = options.search.tolerance
        deviations += [
            f"preconditioned L-BFGS, tolerance {tolerance:g} (protocol: cuML's, 1e-12)",
        ]
    if options.protocol == "dinov2" and not is_multi_label:
        deviations.append("held out by class (protocol: of all images alike)")
    if options.protocol == "kornblith" and validation is None:
        how = "of all images alike" if is_multi_label else "by class"
        deviations.append(f"validation images drawn {how} (protocol: its authors' own draw)")
    return deviations
