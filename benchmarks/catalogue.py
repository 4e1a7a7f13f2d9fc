"""List the benchmarks by name."""

from benchmarks import (
    accuracy,
    card,
    detection,
    engines,
    epoch,
    features,
    gpu_tests,
    knn,
    launches,
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
    "launches": launches.BENCHMARK,
    "scaling": scaling.BENCHMARK,
    "features": features.BENCHMARK,
    "knn": knn.BENCHMARK,
    "probe_heads": probe_heads.BENCHMARK,
    "probe_modes": probe_modes.BENCHMARK,
    "probe_views": probe_views.BENCHMARK,
    "detection": detection.BENCHMARK,
    "engines": engines.BENCHMARK,
    "accuracy": accuracy.BENCHMARK,
    "card": card.BENCHMARK,
    "gpu_tests": gpu_tests.BENCHMARK,
}
