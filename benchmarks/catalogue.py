"""The benchmarks by name."""

from benchmarks import features, knn, probe_heads, probe_modes, step
from benchmarks.measure import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "features": features.BENCHMARK,
    "knn": knn.BENCHMARK,
    "probe_heads": probe_heads.BENCHMARK,
    "probe_modes": probe_modes.BENCHMARK,
    "step": step.BENCHMARK,
}
