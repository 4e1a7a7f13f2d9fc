"""The benchmarks by name."""

from benchmarks import features
from benchmarks.measure import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "features": features.BENCHMARK,
}
