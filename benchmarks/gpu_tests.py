"""Run the tests that need a GPU, and count their results."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.measure import Benchmark, BenchmarkSettings, Figure, Finding, Measurement
from rsa_pretrain.plumbing.errors import UserError

_ROOT = Path(__file__).parents[1]
_MARK = "mark.gpu"


def measure(settings: BenchmarkSettings) -> Measurement:
    """Run the tests once; pytest's output follows on standard output.

    Raises:
        UserError: If pytest ends before it has counted the tests.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        # The mark alone would import every other test file first.
        words = [
            "-m",
            "gpu",
            "-v",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *_test_files(),
        ]
        done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=_ROOT, check=False)
        if not report.exists():
            raise UserError(f"pytest ended with exit code {done.returncode} and without a report")
        counts = count_results(report)
    needed = 1 if settings.device == "cuda" else 0
    findings = [
        Finding(what="failed", value=counts["failed"], unit="tests", bound="at most", limit=0),
        Finding(
            what="passed", value=counts["passed"], unit="tests", bound="at least", limit=needed
        ),
    ]
    skipped = Figure(what="skipped", value=counts["skipped"], unit="tests")
    return Measurement(findings, {"pytest": [time.perf_counter() - started]}, [skipped])


def count_results(report: Path) -> dict[str, int]:
    """Count a JUnit report's tests that passed, failed (errors included) and were skipped."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))

    def total(name: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites)

    failed, skipped = total("failures") + total("errors"), total("skipped")
    return {
        "passed": total("tests") - failed - skipped,
        "failed": failed,
        "skipped": skipped,
    }


def _test_files() -> list[str]:
    return [
        str(path)
        for path in sorted((_ROOT / "tests").rglob("test_*.py"))
        if _MARK in path.read_text(encoding="utf-8")
    ]


BENCHMARK = Benchmark(
    settings=BenchmarkSettings,
    measure=measure,
    summary="The tests marked gpu.",
)
