"""List the benchmarks by name."""

from benchmarks import (
    detection,
    epoch,
    features,
    knn,
    lightly_epoch,
    probe_heads,
    probe_modes,
    probe_views,
    scaling,
    startup,
    step,
    view_cost,
    views,
)
from benchmarks.measure import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "startup": startup.BENCHMARK,
    "views": views.BENCHMARK,
    "view_cost": view_cost.BENCHMARK,
    "step": step.BENCHMARK,
    "epoch": epoch.BENCHMARK,
    "lightly_epoch": lightly_epoch.BENCHMARK,
    "scaling": scaling.BENCHMARK,
    "features": features.BENCHMARK,
    "knn": knn.BENCHMARK,
    "probe_heads": probe_heads.BENCHMARK,
    "probe_modes": probe_modes.BENCHMARK,
    "probe_views": probe_views.BENCHMARK,
    "detection": detection.BENCHMARK,
}
