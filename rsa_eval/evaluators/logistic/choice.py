"""Choose C on held-out training images."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rsa_eval.evaluators.logistic.fit import LogisticFit
from rsa_eval.evaluators.logistic.settings import SearchConfig
from rsa_eval.records.record import WARNINGS
from rsa_pretrain.plumbing.progress import progress_bar

_log = logging.getLogger(__name__)

_SCALE_FEATURES = ", or standardise or scale the features"


@dataclass(frozen=True)
class TriedC:
    """One C and its score on the held-out images."""

    c: float
    score: float
    """In percent, by the measure that chooses."""
    converged: bool
    iterations: int


@dataclass(frozen=True)
class ChosenC:
    """The C that scores best on the held-out images; ties go to the smallest."""

    c: float
    fit: LogisticFit
    """Its fit on the remaining images."""
    trials: list[TriedC]

    @property
    def at_edge(self) -> bool:
        """True if the best C is the smallest or largest tried, so that another may be better.

        A plateau that reaches the edge is represented by its smallest C.
        """
        return len(self.trials) > 1 and self.c in (self.trials[0].c, self.trials[-1].c)


def choose_c(
    fit_c: Callable[[float], LogisticFit],
    score: Callable[[LogisticFit], float],
    strengths: Sequence[float],
) -> ChosenC:
    """Fit every C and keep the one that scores best.

    Args:
        fit_c: Fits a C on the rest of the training images.
        score: Scores a fit on the held-out images, in percent.
        strengths: Values of C in increasing order.
    """
    trials: list[TriedC] = []
    best: tuple[float, float, LogisticFit] | None = None
    with progress_bar(len(strengths), "logistic regression", "fit") as bar:
        for c in strengths:
            fit = fit_c(c)
            found = score(fit)
            trials.append(TriedC(c, found, fit.converged, fit.iterations))
            if best is None or found > best[0]:
                best = found, c, fit
            bar.update()
    assert best is not None
    return ChosenC(best[1], best[2], trials)


def choice_warnings(strengths: Sequence[float], tried: Sequence[float], c: float) -> list[str]:
    """Say that no C was chosen, or that a better one may lie beyond those searched.

    Args:
        strengths: Values of C to search, in increasing order.
        tried: Those that were scored, in increasing order.
        c: The chosen one.
    """
    if len(tried) == 1:
        advice = "; raise search.num_values" if len(strengths) == 1 else ""
        return [f"no C was chosen: {c:g} alone was tried{advice}"]
    if c not in (strengths[0], strengths[-1]):
        return []
    advice = _SCALE_FEATURES if c == strengths[0] else ""
    return [
        f"the best C is at the edge of the range tried, {strengths[0]:g} to {strengths[-1]:g}; "
        f"widen search.min_exponent and search.max_exponent{advice}"
    ]


def describe_choice(
    choice: ChosenC, final: LogisticFit, search: SearchConfig, measure: str
) -> dict[str, Any]:
    """Return a record's details of the choice and the final fit, and warn of what is doubtful.

    Args:
        choice: The choice.
        final: The fit of all training images with the chosen C.
        search: Values of C and limit of iterations.
        measure: Name of the measure that chose.
    """
    tried = [trial.c for trial in choice.trials]
    warnings = choice_warnings(search.strengths, tried, choice.c)
    if not final.converged:
        warnings.append(f"the final fit did not converge in {search.max_iterations} iterations")
    unfinished = sum(not trial.converged for trial in choice.trials)
    if unfinished:
        warnings.append(
            f"{unfinished} of {len(choice.trials)} fits to choose C did not converge in "
            f"{search.max_iterations} iterations"
        )
    for text in warnings:
        _log.warning("%s", text)
    details = {
        "C": choice.c,
        "C_at_edge": choice.at_edge,
        "held_out": [
            {
                "c": trial.c,
                measure: trial.score,
                "converged": trial.converged,
                "iterations": trial.iterations,
            }
            for trial in choice.trials
        ],
        "converged": final.converged,
        "iterations": final.iterations,
    }
    return details | ({WARNINGS: warnings} if warnings else {})
