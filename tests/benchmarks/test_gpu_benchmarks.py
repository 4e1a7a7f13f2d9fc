"""Test the benchmarks that only a GPU gives a meaning."""

import lzma
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import accuracy, card, engines, gpu_tests, knn
from benchmarks.measure import BenchmarkSettings
from rsa_pretrain.plumbing.errors import UserError


def test_epochs_follow_from_speed_and_time() -> None:
    """Nine tenths of 500 s at 20,000 images/s are 9 million images, 90 epochs of both methods."""
    assert accuracy.planned_epochs(20_000, 50_000, 500, 200) == 90
    assert accuracy.planned_epochs(20_000, 50_000, 5000, 200) == 200
    assert accuracy.planned_epochs(1000, 500, 1.2, 200) == 1
    with pytest.raises(UserError, match=r"1 s are too short for an epoch of both methods at 1000"):
        accuracy.planned_epochs(1000, 500, 1, 200)


def test_compressed_batches_are_unpacked_for_a_run(tmp_path: Path) -> None:
    """Published ones are read where they are; without a folder the recipe says where."""
    with accuracy._unpacked(None) as root:
        assert root is None
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    (batches / "test_batch").write_bytes(b"abc")
    with accuracy._unpacked(tmp_path) as root:
        assert root == tmp_path
    (batches / "data_batch_1.xz").write_bytes(lzma.compress(b"def"))
    with accuracy._unpacked(tmp_path) as root:
        assert root is not None
        unpacked = root / batches.name
        assert (unpacked / "data_batch_1").read_bytes() == b"def"
        assert (unpacked / "test_batch").read_bytes() == b"abc"
    assert not unpacked.exists()


def test_ceilings_are_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied byte is read and written; a product of n x n matrices is 2 n^3 operations."""

    def half_a_second(candidates: Any, repeats: int, device: str) -> dict[str, list[float]]:
        for run in candidates.values():
            run()
        return {name: [0.5] for name in candidates}

    monkeypatch.setattr(card, "alternate", half_a_second)
    measured = card.measure(card.CardSettings(copied_mib=1, side=10, calls=3))
    values = {figure.what: (figure.value, figure.unit) for figure in measured.figures}
    assert values["copying memory, read and written"] == (3 * 2 * 2**20 / 0.5 / 1e12, "TB/s")
    assert values[card.BF16_PRODUCT] == (3 * 2 * 10**3 / 0.5 / 1e12, "TFLOP/s")
    assert len(measured.facts["commit"]) == 40 or measured.facts["commit"] == "unknown"


def test_results_of_tests_are_counted(tmp_path: Path) -> None:
    """An error while a test is set up is a failure."""
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10"/>'
        "</testsuites>"
    )
    assert gpu_tests.count_results(report) == {"passed": 4, "failed": 3, "skipped": 3}


def test_the_tests_with_the_mark_are_found() -> None:
    """By the text of their files, so that no other file is imported."""
    found = {Path(path).name for path in gpu_tests._test_files()}
    assert {"test_prefetch.py", "test_trainer.py"} <= found
    assert "test_step.py" not in found


@pytest.mark.process
def test_the_tests_that_need_a_gpu_are_run() -> None:
    """Without one all are skipped, and none fails."""
    measured = gpu_tests.measure(BenchmarkSettings())
    failed, passed = measured.findings
    assert failed.met
    assert passed.value + measured.figures[0].value > 10
    if not torch.cuda.is_available():
        assert passed.value == 0


def test_a_batch_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one image there is no half."""
    tried: list[int] = []

    def train(settings: object, engine: str, batch_size: int) -> dict[str, float]:
        tried.append(batch_size)
        if batch_size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"images_per_second": 8.0, "seconds_per_iteration": 0.5, "data_wait": 0.1}

    monkeypatch.setattr(engines, "train_engine", train)
    monkeypatch.setattr(engines, "ENGINES", {"torchvision": ""})
    fits = 4
    measured = engines.measure(engines.EngineSettings(batch_size=16))
    assert tried == [16, 8, 4]
    assert [figure.value for figure in measured.figures] == [8.0, 4, 0.1]
    fits = 0
    with pytest.raises(torch.OutOfMemoryError):
        engines.measure(engines.EngineSettings(batch_size=2))


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are measured."""

    def load(engine: str) -> None:
        raise UserError(f"engine {engine} needs {engine}, which is not installed: pip install …")

    monkeypatch.setattr(engines, "load_engine", load)
    measured = engines.measure(engines.EngineSettings())
    assert measured.facts["engine detectron2"].startswith("engine detectron2 needs detectron2")
    assert measured.figures == []


def test_the_search_can_do_without_scikit_learn() -> None:
    """Two candidates and their ratio are left."""
    settings = knn.KNNBenchmarkSettings(
        num_bank=60, num_queries=5, width=8, k=3, repeats=1, with_sklearn=False
    )
    measured = knn.measure(settings)
    assert len(measured.seconds) == len(measured.findings) == 2
    assert math.isfinite(measured.findings[0].value)
