"""Measure the geometry of features without labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from rsa_eval.evaluators.diagnostics.geometry import alignment, rank_me, uniformity
from rsa_eval.evaluators.diagnostics.lidar import lidar
from rsa_eval.evaluators.diagnostics.similarity import linear_cka, unbiased_linear_cka
from rsa_eval.evaluators.diagnostics.spectrum import (
    ALPHA_FIRST,
    ALPHA_LAST,
    eigenspectrum,
    power_law_exponent,
)
from rsa_eval.evaluators.diagnostics.view_features import ViewFeatures
from rsa_eval.records.record import Metric
from rsa_pretrain.components.collapse import projection_std
from rsa_pretrain.plumbing.errors import UserError


@dataclass
class Measured:
    """Measures of features, and those that cannot be computed."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """Name and reason of each measure these features do not have."""
    deviations: list[str] = field(default_factory=list)
    """Departures from published measures for lack of images or directions."""

    def add(self, name: str, unit: str, compute: Callable[[], float]) -> None:
        """Add a metric; if it cannot be computed from these features, add the reason instead."""
        try:
            self.metrics[name] = Metric(value=compute(), unit=unit)
        except UserError as error:
            self.left_out.append(f"{name}: {error}")


def measure(
    sample: Tensor, views: ViewFeatures | None = None, other: Tensor | None = None
) -> Measured:
    """Compute every measure without labels.

    Args:
        sample: Features of images, (N, D).
        views: Features of views of images; None for no LiDAR and no alignment.
        other: Another network's features of the images of ``sample``, (N, E); None for no CKA.
    """
    measured = Measured()
    measured.add("rankme", "dimensions", partial(rank_me, sample))
    measured.add("alpha_req", "exponent", partial(_alpha_req, sample, measured))
    measured.add("feature_std", "1/√D", lambda: float(projection_std(sample)))
    measured.add("uniformity", "log", partial(uniformity, sample))
    if views is not None:
        measured.add("lidar", "dimensions", partial(_lidar, views.aggressive, measured))
        first, second, *_ = views.aggressive
        measured.add("alignment", "squared distance", partial(alignment, first, second))
        measured.add("alignment_weak", "squared distance", partial(alignment, *views.weak))
    if other is not None:
        measured.add("cka", "similarity", partial(linear_cka, sample, other))
        measured.add("cka_unbiased", "similarity", partial(unbiased_linear_cka, sample, other))
    return measured


def _alpha_req(sample: Tensor, measured: Measured) -> float:
    eigenvalues = eigenspectrum(sample)
    exponent = power_law_exponent(eigenvalues)
    if len(eigenvalues) < ALPHA_LAST:
        measured.deviations.append(
            f"alpha_req fitted to eigenvalues {ALPHA_FIRST} to {len(eigenvalues)} "
            f"(α-ReQ: {ALPHA_FIRST} to {ALPHA_LAST})"
        )
    return exponent


def _lidar(views: Sequence[Tensor], measured: Measured) -> float:
    value = lidar(views)
    num_images, width = views[0].shape
    if num_images <= width:
        measured.deviations.append(
            f"LiDAR of {num_images} images with {width} features (LiDAR: more images than features)"
        )
    return value
